"""What every stage needs to run: config, checkpoints, seeds, devices, progress, and the run folder.

Import from its modules: every command imports this file, and importing torch takes seconds.
"""

from .errors import UserError

__all__ = ["UserError"]
