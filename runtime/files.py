"""Atomic file writing: a reader finds the old file or the new one, never a part of either."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import UserError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "permission denied; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another path",
    errno.EEXIST: "a part of this path is a file, not a folder; choose another path",
    errno.EISDIR: "there is a folder of this name; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_observers: list[Callable[[Path], None]] = []


@contextlib.contextmanager
def observing_writes(observer: Callable[[Path], None]) -> Iterator[None]:
    """Call a function with the path of each file that `write_atomically` is about to write, within a block."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def cannot_write(path: Path, error: OSError) -> UserError:
    """Turn an error of the operating system into one line with the file and the remedy."""
    reason = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, f"{reason}; choose another folder")
    return UserError(f"cannot write {path}: {remedy}")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: If it cannot be read or is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8; save it in UTF-8") from None
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def make_folder(path: Path) -> Path:
    """Make a folder and its parents where they do not exist, and return it; raise a `UserError` if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], None]) -> None:
    """Write a file so that `path` holds its complete old or new content, even after a kill or a power cut.

    The content goes to a file with a temporary name in the same folder, is synced to disk and renamed.

    Args:
        content: Text, bytes, or a function that writes to the open binary file. Text is written as UTF-8; what UTF-8
            does not have, as in some names of files, is escaped.

    Raises:
        UserError: If the file cannot be written (disk full, no permission, ...); nothing is left behind.
    """
    make_folder(path.parent)
    for observer in _observers:
        observer(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # not longer than the longest name that fits
    try:
        with open(temporary, "xb") as file:
            _lock(file)
            if callable(content):
                content(file)
            else:
                file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of `write_atomically` in a folder whose writers were killed."""
    for temporary in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(temporary.name) and temporary.is_file():  # other names are other people's
            with contextlib.suppress(OSError), open(temporary, "rb") as file:
                _lock(file)
                temporary.unlink()


def _lock(file: BinaryIO) -> None:
    """Lock a file until it is closed or the process ends; fail if another one has locked it.

    Raises:
        BlockingIOError: If it is locked.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks.
        if isinstance(error, BlockingIOError):
            raise


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems refuse to sync a folder; the file itself is already safe.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
