"""timfuse finds, pre-trains, adapts and runs compact image-fusion networks."""

__version__ = "0.1.0"
