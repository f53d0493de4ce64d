"""Text files with the names of a data set's classes."""

from collections.abc import Sequence
from pathlib import Path

from ..runtime.errors import UserError
from ..runtime.files import write_atomically


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read a text file with one unique class name per line, in the order of the class ids from 0 on.

    Raises:
        UserError: If the file is missing, is no text or is empty, has an empty line between others or a name twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the class names {path}; write one name per line, the name of class 0 first"
        ) from error
    names = [line.strip() for line in text.rstrip().splitlines()]
    if not names:
        raise UserError(f"{path} names no class; write one name per line, the name of class 0 first")
    if "" in names:
        raise UserError(
            f"{path}, line {names.index('') + 1} is empty, but every line stands for a class id; name the class"
        )
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise UserError(f"{path} names {twice[0]!r} twice; give every class its own name")
    return tuple(names)


def write_class_names(path: Path, names: Sequence[str]) -> None:
    """Write a file that `read_class_names` reads."""
    write_atomically(path, "".join(f"{name}\n" for name in names).encode())
