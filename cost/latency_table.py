"""The file that keeps the measurements of a device for later searches."""

import contextlib
import fcntl
import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from ..runtime.device import device_name
from ..runtime.errors import UserError
from ..runtime.files import cannot_write, make_folder, write_atomically
from ..runtime.yaml_text import dump_yaml, parse_yaml

LatencyTable = dict[str, float]  # a part of a network, in words -> milliseconds


def latency_table_path(device: torch.device) -> Path:
    """Return the file in the user's cache that keeps the table of a device."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    slug = "".join(letter if letter.isalnum() else "-" for letter in device_name(device))
    return cache / "timfuse" / f"latency-{slug}.yaml"


def load_latency_table(path: Path, device: torch.device) -> LatencyTable:
    """Read a table that was measured on a device; a file that does not exist is an empty table.

    Raises:
        UserError: If the file is damaged or belongs to another device.

    Example:
        >>> load_latency_table(Path("no such file.yaml"), torch.device("cpu"))
        {}
    """
    if not path.is_file():
        return {}
    try:
        content = parse_yaml(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; delete it to measure anew") from None
    table = content.get("milliseconds") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not all(
        type(value) in (int, float) and 0 <= value < math.inf for value in table.values()
    ):
        raise UserError(f"{path} is not a latency table; delete it to measure anew")
    if content.get("device") != device_name(device):
        raise UserError(f"{path} was measured on {content.get('device')}, not on {device_name(device)}; delete it")
    return {key: float(value) for key, value in table.items()}


def save_latency_table(path: Path, table: LatencyTable, device: torch.device) -> None:
    """Write a table with the name of its device.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_latency_table(Path(folder, "latency.yaml"), {"rest": 1.5}, torch.device("cpu"))
        ...     load_latency_table(Path(folder, "latency.yaml"), torch.device("cpu"))
        {'rest': 1.5}
    """
    content = {"device": device_name(device), "milliseconds": dict(sorted(table.items()))}
    write_atomically(path, dump_yaml(content))


def merge_latency_table(path: Path, measured: LatencyTable, device: torch.device) -> None:
    """Put measurements into a table, in place of older ones; other processes may change it at the same time.

    Raises:
        UserError: If the file cannot be read or written.
    """
    if measured:
        with _locked(path):
            save_latency_table(path, load_latency_table(path, device) | measured, device)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from changing a file; the operating system frees the lock when this process ends."""
    lock = make_folder(path.parent) / f".{path.name}.lock"
    try:
        file = lock.open("a", encoding="utf-8")
    except OSError as error:
        raise cannot_write(lock, error) from error
    with file:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
