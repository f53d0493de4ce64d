"""Pairing image files: of a data set in any of its usual layouts, of two folders, and fused images with their pairs."""

import glob
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..genotypes.choices import check_choice
from ..runtime.errors import UserError
from .images import SUFFIXES
from .layouts import LAYOUTS, Layout, divided, find_images


class Pair(NamedTuple):
    """Two image files of one scene, aligned pixel by pixel."""

    name: str
    first: Path
    second: Path


_Found = dict[str, list[Path]]  # by name; several files where several fit


def find_pairs(
    root: Path,
    task: str = "infrared-visible",
    split: str | None = None,
    *,
    folders: tuple[str, str] | None = None,
) -> list[Pair]:
    """Find the pairs of a data set in whichever of its task's `LAYOUTS` it lies on disk, or in two folders of it.

    Args:
        root: The folder of the data set.
        task: A key of `genotypes.TASKS`; with `folders` any name.
        split: The part of the set to take: the folder of this name in `root` or below the two folders, or else the
            pairs that `<split>.txt` in `root` names. None takes all pairs, of a set that is divided into folders
            those of `train`.
        folders: The folders below `root` that hold the first and the second source, where they are not to be looked
            for in the task's layouts.

    Returns:
        The pairs, sorted by name.

    Raises:
        UserError: If the task is unknown, the folder does not exist, holds no pairs of this task or more than one kind
            of them, there is no such part, a file has no partner or two files share a name.
    """
    if folders is None:
        check_choice("task", task, LAYOUTS)
    layouts = LAYOUTS[task] if folders is None else (_layout_of(folders),)
    if not root.is_dir():
        raise UserError(f"the data folder {root} does not exist; check the path")
    parts = [part for layout in layouts for part in divided(layout, split or "train")]
    whole = _search(root, layouts)
    part = _search(root, parts) if split is not None or whole is None else None
    found = part or whole
    if found is None:
        if folders is not None:
            _check_folders(root, [*layouts, *parts])
        raise UserError(_nothing_found(root, task, parts if split else layouts))
    if split is None or part is not None:
        return _join(root, *found)
    names = root / f"{split}.txt"
    if not names.exists():
        raise UserError(f"{root} is not divided: there is neither a folder {split}/ nor {split}.txt with pair names")
    return _join(root, *found, wanted=read_names(names, found[0].keys() | found[1].keys()))


def match_pairs(first: str | Path, second: str | Path) -> list[Pair]:
    """Pair what a user names as the two sources: by file name, or two single files whatever their names.

    Args:
        first: A file, a folder or a glob pattern.
        second: As `first`; extensions may differ.

    Returns:
        The pairs, sorted by name; that of two single files is the first's.

    Raises:
        UserError: If there is nothing of this path, a folder without images, an image without a partner, or two files
            of one side share a name.
    """
    if Path(first).is_file() and Path(second).is_file():
        return [Pair(Path(first).stem, Path(first), Path(second))]
    sides = _named(first), _named(second)
    alone = [
        f"{argument} has {len(names)} without a partner ({_few(names)})"
        for argument, side, other in zip((first, second), sides, reversed(sides), strict=True)
        if (names := [path.name for name, path in side.items() if name not in other])
    ]
    if alone:
        raise UserError(f"the images do not pair by name: {', '.join(alone)}; rename or remove them")
    return [Pair(name, sides[0][name], sides[1][name]) for name in sorted(sides[0])]


def find_fused(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find the fused image of each pair by name; the extensions may differ, and other images are passed over.

    Args:
        folder: The fused images of one method.
        names: Of the pairs.

    Returns:
        One file for each pair, in their order.

    Raises:
        UserError: If the folder does not exist or is empty, lacks a pair's image or holds two.
    """
    if not folder.is_dir():
        raise UserError(f"the folder of fused images {folder} does not exist; check the path")
    images = _named(folder)
    missing = [name for name in names if name not in images]
    if missing:
        raise UserError(
            f"{folder} lacks the fused images of {len(missing)} of {len(names)} pairs ({_few(missing)}); "
            "fuse these too, under the names of their pairs"
        )
    return [images[name] for name in names]


def named_folders(arguments: Sequence[str]) -> dict[str, Path]:
    """Tell apart the names and folders of methods as users give them: NAME=FOLDER, or FOLDER for its own name.

    Args:
        arguments: One for each method; a folder whose name has an equals sign in it is still a folder.

    Returns:
        The folders by name, in their order.

    Raises:
        UserError: If two methods have one name.
    """
    folders: dict[str, Path] = {}
    for text in arguments:
        named = "=" in text and not Path(text).is_dir()
        name, _, folder = text.partition("=") if named else ("", "", text)
        path = Path(folder).expanduser()
        name = name or path.resolve().name
        if name in folders:
            raise UserError(f"two methods are called {name}; name them with NAME=FOLDER")
        folders[name] = path
    return folders


def read_names(path: Path, known: set[str]) -> list[str]:
    """Read a text file with one pair name per line, with or without the image's extension.

    Args:
        path: The text file; empty lines are skipped.
        known: The names that exist.

    Returns:
        The names, sorted, each once.

    Raises:
        UserError: If the file cannot be read, is empty or holds a name that does not exist.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of names {path}; write one pair name per line") from error
    names = {
        line if line in known or Path(line).suffix.lower() not in SUFFIXES else Path(line).stem
        for line in lines
        if line
    }
    if not names:
        raise UserError(f"{path} names no pair; write one pair name per line or remove the file")
    missing = sorted(names - known)
    if missing:
        raise UserError(f"{path} names {_few(missing)}, of which there is no image; correct the list")
    return sorted(names)


def _layout_of(folders: tuple[str, str]) -> Layout:
    """The layout of a set whose two folders are named."""
    for folder in folders:
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts or "*" in folder or "NAME" in folder:
            raise UserError(f"{folder!r} cannot be a folder of a source; name one below the data folder, like 'ir'")
    first, second = (str(PurePosixPath(folder) / "NAME") for folder in folders)
    if first == second:
        raise UserError(f"both sources are said to lie in {folders[0]!r}; name two folders")
    return first, second


def _check_folders(root: Path, layouts: Sequence[Layout]) -> None:
    """Tell which of the two folders that a user named is missing or empty in all of these layouts."""
    for side in zip(*layouts, strict=True):
        if not any(find_images(root, pattern) for pattern in side):
            paths = [root / PurePosixPath(pattern).parent for pattern in side]
            for path in paths:
                if path.is_dir():
                    raise UserError(f"{path} holds no image; put {', '.join(SUFFIXES)} files there")
            raise UserError(f"the folder {paths[0]} does not exist; check its name")


def _search(root: Path, layouts: Sequence[Layout]) -> tuple[_Found, _Found] | None:
    """Find the images of both sides in the one layout in which the set lies; None where it lies in none of them."""
    present = []
    for layout in layouts:
        first, second = (find_images(root, pattern) for pattern in layout)
        if first and second:
            present.append((layout, first, second))
    # Sides that share no name are taken for want of better alone: joining them tells what is wrong.
    chosen = [entry for entry in present if entry[1].keys() & entry[2].keys()] or present[:1]
    if len(chosen) > 1:
        ways = " and as ".join(" + ".join(layout) for layout, _, _ in chosen)
        raise UserError(f"{root} holds pairs as {ways}; move one kind of them away")
    return chosen[0][1:] if chosen else None


def _join(root: Path, first: _Found, second: _Found, wanted: Sequence[str] | None = None) -> list[Pair]:
    """Make pairs of the two sides of a set, or of those names of it that are wanted."""
    names = sorted(first.keys() | second.keys()) if wanted is None else wanted
    alone = [
        str(path.relative_to(root))
        for side, other in ((first, second), (second, first))
        for name in names
        if name not in other
        for path in side[name]
    ]
    if alone:
        raise UserError(f"{root}: {_few(alone)} without a partner of the same name; add the partners or remove them")
    return [Pair(name, _only(first[name]), _only(second[name])) for name in names]


def _named(argument: str | Path) -> dict[str, Path]:
    """List the images of a file, a folder or a glob pattern by name, sorted."""
    path = Path(argument)
    found: _Found = {}
    if path.is_dir():
        found = find_images(path, "NAME")
    else:
        hits = [path] if path.is_file() else [Path(hit) for hit in sorted(glob.glob(str(path), recursive=True))]
        for hit in hits:
            if hit.suffix.lower() in SUFFIXES and hit.is_file():
                found.setdefault(hit.stem, []).append(hit)
    if not found and path.exists():
        raise UserError(f"{path} holds no image; put {', '.join(SUFFIXES)} files there")
    if not found:
        raise UserError(f"there is no image {path}; check the path")
    return {name: _only(files) for name, files in sorted(found.items())}


def _only(files: Sequence[Path]) -> Path:
    if len(files) > 1:
        other = files[1].name if files[0].parent == files[1].parent else files[1]
        raise UserError(f"{files[0].parent} holds both {files[0].name} and {other}; keep one file for each name")
    return files[0]


def _nothing_found(root: Path, task: str, layouts: Sequence[Layout]) -> str:
    looked = _few([" + ".join(layout) for layout in layouts], 6)
    half = next((pattern for layout in layouts for pattern in layout if find_images(root, pattern)), None)
    found = f" and found {half} alone" if half else ""
    return f"{root} holds no {task} pairs; looked for {looked}{found}"


def _few(items: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(items[:count])
    return shown if len(items) <= count else f"{shown} and {len(items) - count} more"
