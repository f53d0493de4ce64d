"""Files with the names of a data set's classes: lists of names, lists with colours, and `data.yaml` of YOLO."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.yaml_text import parse_yaml
from .label_text import read_label_text
from .pair_batch import IGNORED

Colour = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""

_REMEDY = "write one name per line, the name of class 0 first"
_MOST = 2**15  # classes; what more of them take of memory no network is worth
_COLOURED = re.compile(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*)")


def find_class_names(root: Path, folder: Path) -> Path | None:
    """Find the names of the classes of boxes; None if no file has them.

    Args:
        root: Folder of the data set, which the label files are in.
        folder: Folder of the label files themselves.

    Returns:
        `classes.txt` in `root`, or where that does not exist the one beside the label files or in a folder above
        them, or `data.yaml` in `root`.
    """
    above = [each for each in (folder, *folder.parents) if root in each.parents]
    files = [*(each / "classes.txt" for each in (root, *above)), root / "data.yaml"]
    return next((file for file in files if file.exists()), None)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read the names of classes in the order of their ids from 0 on.

    Args:
        path: A text file with one name per line; or a YAML file that has `names`, as a list or by ids.

    Raises:
        UserError: If the file is missing, is no text or is empty, has an empty line between others, a name twice or
            a name with control characters, or if a YAML file is damaged or its ids leave one out.
    """
    names = _names_in_yaml(path) if path.suffix == ".yaml" else _read_lines(path)
    check_class_names(names, str(path))
    return names


def read_mask_classes(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Read the names of the classes of masks, and the colours that stand for them if there are any.

    Args:
        path: A text file with one name per line, or with `red green blue name` in every line, as in CamVid.

    Returns:
        The names, and the colour of each class; no colours if the lines have none.

    Raises:
        UserError: If `read_class_names` refuses the file, only some lines have a colour, or a colour is none or is
            there twice.
    """
    lines = _read_lines(path)
    if len(lines) > IGNORED:
        raise UserError(f"{path} names {len(lines)} classes; masks hold at most {IGNORED}")
    found = [_COLOURED.fullmatch(line) for line in lines]
    if not any(found):
        check_class_names(lines, str(path))
        return lines, ()
    table: dict[Colour, str] = {}
    for number, match in enumerate(found, start=1):
        if match is None:
            raise UserError(f"{path}, line {number} has no colour, unlike others; write 'red green blue name'")
        colour = (int(match[1]), int(match[2]), int(match[3]))
        if max(colour) > 255:
            raise UserError(f"{path}, line {number}: the colour goes beyond 255; write three numbers from 0 to 255")
        if colour in table:
            raise UserError(
                f"{path}, line {number}: the colour stands for {table[colour]!r} already; give every class its own"
            )
        table[colour] = match[4]
    check_class_names(tuple(table.values()), str(path))
    return tuple(table.values()), tuple(table)


def check_class_names(names: Sequence[str], source: str) -> None:
    """Raise a `UserError` unless the names of classes are not too many, differ and can be printed.

    Args:
        source: Where the names stand, for the error.
    """
    if len(names) > _MOST:
        raise UserError(f"{source} names {len(names)} classes; the most are {_MOST}")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{source} names {name!r} twice; give every class its own name")
        if not name.isprintable():
            raise UserError(f"{source} has control characters in the class name {name[:40]!r}; take them out")
        seen.add(name)


def write_class_names(path: Path, names: Sequence[str]) -> None:
    """Write a file that `read_class_names` reads."""
    write_atomically(path, "".join(f"{name}\n" for name in names).encode())


def _read_lines(path: Path) -> tuple[str, ...]:
    text = read_label_text(path, "class names", _REMEDY)
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names:
        raise UserError(f"{path} names no class; {_REMEDY}")
    if "" in names:
        raise UserError(
            f"{path}, line {names.index('') + 1} is empty, but every line stands for a class id; name the class"
        )
    return names


def _names_in_yaml(path: Path) -> tuple[str, ...]:
    content = parse_yaml(read_label_text(path, "class names", "give `names` as a list"), str(path), numbered=True)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        by_id = {str(key): name for key, name in names.items()}
        missing = [number for number in range(len(by_id)) if str(number) not in by_id]
        if missing:
            raise UserError(f"{path} names no class {missing[0]}; number the {len(by_id)} classes from 0 on")
        names = [by_id[str(number)] for number in range(len(by_id))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} names no class; give `names` as a list")
    for name in names:
        if type(name) not in (str, int) or not str(name).strip():
            raise UserError(f"{path} has {str(name)[:40]!r} among `names`, which is no name; write a text in quotes")
    return tuple(str(name).strip() for name in names)
