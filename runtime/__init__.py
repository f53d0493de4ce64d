"""What every stage needs to run: config, checkpoints, seeds, devices, progress, and the run folder."""

from .checkpoint import capture_rng, load_checkpoint, restore_rng, save_checkpoint
from .config import Section, config_hash, config_to_yaml, load_config, resolve_config_path
from .device import device_name, select_device
from .errors import UserError
from .files import write_atomically
from .history import History, read_history
from .interruption import deferred_interrupt
from .memory import keep_freed_memory
from .progress import Progress
from .run_folder import RunFolder, open_run
from .seeds import derive_seed, seed_everything
from .weights import load_into, load_weights, save_weights

__all__ = [
    "History",
    "Progress",
    "RunFolder",
    "Section",
    "UserError",
    "capture_rng",
    "config_hash",
    "config_to_yaml",
    "deferred_interrupt",
    "derive_seed",
    "device_name",
    "keep_freed_memory",
    "load_checkpoint",
    "load_config",
    "load_into",
    "load_weights",
    "open_run",
    "read_history",
    "resolve_config_path",
    "restore_rng",
    "save_checkpoint",
    "save_weights",
    "seed_everything",
    "select_device",
    "write_atomically",
]
