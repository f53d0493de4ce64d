"""The file that keeps what was measured on a device for later searches."""

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

Table = dict[str, float]  # what was measured -> milliseconds


def table_path(device: torch.device) -> Path:
    """Return where the latency table of a device is cached for later searches."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    slug = "".join(letter if letter.isalnum() else "-" for letter in device_name(device))
    return cache / "timfuse" / f"latency-{slug}.yaml"


def load_table(path: Path, device: torch.device) -> Table:
    """Read a table; an absent one is empty.

    Args:
        path: the YAML file.
        device: which the table must have been measured on.

    Returns:
        Milliseconds by what was measured.

    Raises:
        UserError: the file is damaged or belongs to another device.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; delete it and it is measured anew") from None
    except UnicodeDecodeError:
        text = ""
    content = parse_yaml(text, str(path))
    table = content.get("milliseconds") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not all(
        type(value) in (int, float) and 0 <= value < math.inf for value in table.values()
    ):
        raise UserError(f"{path} is not a latency table; delete it and it is measured anew")
    if content.get("device") != device_name(device):
        raise UserError(f"{path} was measured on {content.get('device')}, not on {device_name(device)}; delete it")
    return {key: float(value) for key, value in table.items()}


def save_table(path: Path, table: Table, device: torch.device) -> None:
    """Write a table with the name of its device."""
    content = {"device": device_name(device), "milliseconds": dict(sorted(table.items()))}
    write_atomically(path, dump_yaml(content))


def merge_table(path: Path, measured: Table, device: torch.device) -> None:
    """Put measurements into a table to which other processes may be adding theirs.

    Args:
        path: the YAML file.
        measured: milliseconds, which replace older ones of the same things.
        device: on which they were measured.

    Raises:
        UserError: the file cannot be read or written.
    """
    if measured:
        with _locked(path):
            save_table(path, load_table(path, device) | measured, device)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from changing a file; the operating system frees the lock when this one ends."""
    lock = make_folder(path.parent) / f".{path.name}.lock"
    try:
        file = lock.open("a", encoding="utf-8")
    except OSError as error:
        raise cannot_write(lock, error) from error
    with file:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
