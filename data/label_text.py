"""Text files with labels, which are read whole, but neither from a device nor without end."""

import stat
from pathlib import Path

from ..runtime.errors import UserError

_MEGABYTES = 16  # of one image's labels or a data set's class names, which are a few kilobytes


def read_label_file(path: Path, what: str, remedy: str, *, megabytes: int = _MEGABYTES) -> bytes:
    """Read a file with labels.

    Args:
        what: What the file holds, for errors, such as "boxes".
        remedy: What to write into the file, for errors.
        megabytes: Largest size of the file, in units of 1,048,576 bytes.

    Raises:
        UserError: If the file cannot be read, is no regular file or is larger.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no regular file; replace or remove it")
        if status.st_size > megabytes * 2**20:
            raise UserError(f"{path} has more than {megabytes} MB, which no file of {what} has; {remedy}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the {what} {path}; {remedy}") from error


def read_label_text(path: Path, what: str, remedy: str) -> str:
    """Read a text file with labels in UTF-8, with or without a byte order mark.

    Args:
        what: What the file holds, for errors, such as "boxes".
        remedy: What to write into the file, for errors.

    Raises:
        UserError: If the file cannot be read, is no regular file, is larger than 16 MB or in another encoding.
    """
    try:
        return read_label_file(path, what, remedy).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read the {what} {path}; {remedy}") from error
