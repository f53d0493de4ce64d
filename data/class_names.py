"""Reading the names of a data set's classes."""

from collections.abc import Sequence
from pathlib import Path

from ..runtime.errors import UserError
from ..runtime.files import write_atomically


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read a text file with one class name per line, in the order of the class ids from 0 on.

    Args:
        path: The text file; empty lines at its end are skipped.

    Returns:
        The names, at least one, each another.

    Raises:
        UserError: If the file is missing or no text, is empty, has an empty line among the others or a name twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the class names {path}; write one name per line, that of class 0 first"
        ) from error
    names = [line.strip() for line in text.rstrip().splitlines()]
    if not names:
        raise UserError(f"{path} names no class; write one name per line, that of class 0 first")
    if "" in names:
        raise UserError(
            f"{path}, line {names.index('') + 1} is empty, but every line stands for a class id; name the class"
        )
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise UserError(f"{path} names {twice[0]!r} twice; give every class its own name")
    return tuple(names)


def write_class_names(path: Path, names: Sequence[str]) -> None:
    """Write what `read_class_names` reads.

    Args:
        path: The file; missing folders above it are made.
        names: One for each class id, from 0 on.

    Raises:
        UserError: If the file cannot be written.
    """
    write_atomically(path, "".join(f"{name}\n" for name in names).encode())
