"""Fingerprints of contents, by which processes on several machines check that they see the same data."""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..runtime.errors import UserError


def fingerprint(parts: Iterable[object]) -> str:
    """Compute the fingerprint of text, numbers and nested lists of them: 32 hexadecimal digits.

    Example:
        >>> fingerprint(["a", (1, 2)]) == fingerprint(("a", [1, 2]))
        True
    """
    return hashlib.blake2b(json.dumps(list(parts)).encode(), digest_size=16).hexdigest()


def fingerprint_files(paths: Iterable[Path]) -> list[str]:
    """Compute the fingerprint of each file's content, in hexadecimal digits."""
    with ThreadPoolExecutor() as executor:
        return list(executor.map(_of_file, paths))


def _of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the file") from None
