"""What every stage needs to run: config, checkpoints, seeds, devices, progress, and the run folder.

Import from its modules: this file is on the way of every command, and importing torch takes seconds.
"""

from .errors import UserError

__all__ = ["UserError"]
