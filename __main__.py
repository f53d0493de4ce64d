"""Runs the command line for `python -m timfuse`."""

from .cli import main

if __name__ == "__main__":
    main()
