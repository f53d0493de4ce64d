"""Pairs of image files: in a data set of any usual layout, in two folders, and fused images with their pairs."""

import glob
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast

from ..genotypes.choices import check_choice
from ..runtime.errors import UserError
from ..runtime.files import read_text
from .images import SUFFIXES, Channels, Pixels, has_8_bits, read_pixels, read_samples
from .layouts import LAYOUTS, Layout, divided, find_images
from .stretch import Stretch, find_stretch

_ALPHA = ":alpha"


class Pair(NamedTuple):
    """Two image files of one scene, aligned pixel by pixel.

    Attributes:
        channels: What to read of each file: its colour or its alpha channel.
        stretches: How to stretch the samples of each file, if it has more than 8 bits.

    Example:
        >>> Pair("00001", Path("ir/00001.png"), Path("vis/00001.jpg")).second.name
        '00001.jpg'
    """

    name: str
    first: Path
    second: Path
    channels: tuple[Channels, Channels] = ("colour", "colour")
    stretches: tuple[Stretch | None, Stretch | None] = (None, None)

    def read(self) -> tuple[Pixels, Pixels]:
        """Read both images, (H, W) or (H, W, 3), uint8 or uint16.

        Raises:
            UserError: If one of them cannot be read; see `read_pixels`.
        """
        first, second = map(_read, self[1:3], self.channels, self.stretches)
        return first, second


_Found = dict[str, list[Path]]  # by name; several files where several fit


def find_pairs(
    root: Path,
    task: str = "infrared-visible",
    split: str | None = None,
    *,
    folders: tuple[str, str] | None = None,
    stretch: bool = False,
) -> list[Pair]:
    """Find the pairs of a data set in any of the task's `LAYOUTS`, or in two folders of the data set.

    Args:
        task: A key of `genotypes.TASKS`; any name if `folders` are given.
        split: The part of the data set to take: a folder of this name, in `root` or below the folders of the sources,
            or the pairs that `<split>.txt` in `root` names. None takes all pairs; of a data set that is divided into
            folders, the pairs of `train`.
        folders: Folders in `root` with the images of the first and the second source, instead of the task's layouts.
            FOLDER:alpha is the alpha channel of the images in FOLDER, in which some data sets keep a second image.
        stretch: Whether to stretch images of sensor counts or temperatures; see `find_stretch`.

    Raises:
        UserError: If the task is unknown, the folder does not exist, it holds no pairs of this task or pairs in two
            layouts, there is no such part, a file has no partner, two files share a name, or images are raw counts
            and are not to be stretched.

    Example:
        >>> import tempfile
        >>> from timfuse.data import write_scenes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_scenes(Path(folder), 2, task="multi-focus", height=32, width=32, seed=0)
        ...     [f"{pair.name}: {pair.first.parent.name}" for pair in find_pairs(Path(folder), "multi-focus")]
        ['scene_00000: near', 'scene_00001: near']
    """
    channels: tuple[Channels, Channels] = ("colour", "colour")
    if folders is None:
        check_choice("task", task, LAYOUTS)
        layouts = LAYOUTS[task]
    else:
        layouts = (_layout_of(folders),)
        channels = _apart(folders)[1]
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
    wanted = None
    if split is not None and part is None:
        names = root / f"{split}.txt"
        if not names.exists():
            raise UserError(
                f"{root} is not divided: there is neither a folder {split}/ nor {split}.txt with pair names"
            )
        wanted = read_names(names, found[0].keys() | found[1].keys())
    return _complete(_join(root, *found, wanted=wanted), channels, stretch=stretch)


def match_pairs(first: str | Path, second: str | Path, *, stretch: bool = False) -> list[Pair]:
    """Pair the images of two sources by name, or two single files whatever their names.

    Args:
        first: A file, a folder or a glob pattern for the first source. With ":alpha" at its end, it is the alpha
            channel of these images, in which some data sets keep a second image.
        second: The same for the second source; the suffixes of the images may differ.
        stretch: Whether to stretch images of sensor counts or temperatures; see `find_stretch`.

    Raises:
        UserError: If there is no such path, a folder holds no images, an image has no partner, or two files of one
            source share a name.

    Example:
        >>> import tempfile
        >>> from timfuse.data import write_scenes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first, second = write_scenes(Path(folder), 3, height=32, width=32, seed=0)
        ...     [pair.name for pair in match_pairs(first, second)]
        ['scene_00000', 'scene_00001', 'scene_00002']
    """
    (first, second), channels = _apart((str(first), str(second)))
    if Path(first).is_file() and Path(second).is_file():
        return _complete([Pair(Path(first).stem, Path(first), Path(second))], channels, stretch=stretch)
    sides = _named(first), _named(second)
    alone = [
        f"{argument} has {len(names)} without a partner ({_few(names)})"
        for argument, side, other in zip((first, second), sides, reversed(sides), strict=True)
        if (names := [path.name for name, path in side.items() if name not in other])
    ]
    if alone:
        raise UserError(f"the images do not pair by name: {', '.join(alone)}; rename or remove them")
    return _complete(
        [Pair(name, sides[0][name], sides[1][name]) for name in sorted(sides[0])], channels, stretch=stretch
    )


def find_fused(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find the fused image of each pair by name.

    Args:
        folder: The fused images of one method, with any suffix; further images are ignored.

    Raises:
        UserError: If the folder does not exist or is empty, or has no image or two images for a pair.
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
    """Read the names and folders of methods from arguments of a command line.

    Args:
        arguments: NAME=FOLDER for each method, or FOLDER for a method with the folder's name. An existing folder may
            have an equals sign in its name.

    Raises:
        UserError: If two methods have the same name.
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
    """Read a list of pairs and sort their names.

    A line has a name, or the path of one or both images, with or without suffix.

    Raises:
        UserError: If the file cannot be read, is empty or has an unknown name.
    """
    names = {_name_in(line.strip(), known) for line in read_text(path).splitlines() if line.strip()}
    if not names:
        raise UserError(f"{path} names no pair; write one pair name per line or remove the file")
    missing = sorted(names - known)
    if missing:
        raise UserError(f"{path} names {_few(missing)}, of which there is no image; correct the list")
    return sorted(names)


def _name_in(line: str, known: set[str]) -> str:
    """Find the name of a pair in a line of a list; a line without a known one is returned as it is."""
    for entry in (line, *line.split()):
        for name in (entry, PurePosixPath(entry).name, PurePosixPath(entry).stem):
            if name in known:
                return name
    return line


def _layout_of(folders: tuple[str, str]) -> Layout:
    """Make the layout of a data set whose two folders are named, with what to read there."""
    for folder in folders:
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts or "*" in folder or "NAME" in folder:
            raise UserError(f"{folder!r} cannot be a folder of a source; name one below the data folder, like 'ir'")
    paths, channels = _apart(folders)
    first, second = (str(PurePosixPath(path) / "NAME") for path in paths)
    if first == second and channels[0] == channels[1]:
        raise UserError(f"both sources are in {folders[0]!r}; name two folders")
    return first, second


def _check_folders(root: Path, layouts: Sequence[Layout]) -> None:
    """Raise the error for the folder, of the two that a user named, that is missing or empty in all layouts."""
    for side in zip(*layouts, strict=True):
        if not any(find_images(root, pattern) for pattern in side):
            paths = [root / PurePosixPath(pattern).parent for pattern in side]
            for path in paths:
                if path.is_dir():
                    raise UserError(f"{path} holds no image; put {', '.join(SUFFIXES)} files there")
            raise UserError(f"the folder {paths[0]} does not exist; check its name")


def _search(root: Path, layouts: Sequence[Layout]) -> tuple[_Found, _Found] | None:
    """Find the images of both sources in the one layout that the data set has; None if it has none of them."""
    present = []
    for layout in layouts:
        first, second = (find_images(root, pattern) for pattern in layout)
        if first and second:
            present.append((layout, first, second))
    # A layout whose sources share no name is the last resort: joining its images raises an error with the names.
    chosen = [entry for entry in present if entry[1].keys() & entry[2].keys()] or present[:1]
    if len(chosen) > 1:
        ways = " and as ".join(" + ".join(layout) for layout, _, _ in chosen)
        raise UserError(f"{root} holds pairs as {ways}; move one kind of them away")
    return chosen[0][1:] if chosen else None


def _join(root: Path, first: _Found, second: _Found, wanted: Sequence[str] | None = None) -> list[Pair]:
    """Make the pairs of all names, or of those that are wanted."""
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


def _complete(pairs: list[Pair], channels: tuple[Channels, Channels], *, stretch: bool) -> list[Pair]:
    """Add how to read the files, and refuse a pair whose sources are one file: fusing it changes nothing."""
    if channels[0] == channels[1]:
        for pair in pairs:
            if pair.first.samefile(pair.second):
                raise UserError(
                    f"both sources of {pair.name} are the file {pair.first}; name two different ones, or with "
                    f"'{_ALPHA}' at the end of one its alpha channel"
                )
    first = find_stretch([pair.first for pair in pairs], channels[0], stretch=stretch)
    second = find_stretch([pair.second for pair in pairs], channels[1], stretch=stretch)
    return [pair._replace(channels=channels, stretches=(first, second)) for pair in pairs]


def _read(file: Path, channels: Channels, stretch: Stretch | None) -> Pixels:
    if stretch is None or has_8_bits(file):
        return read_pixels(file, channels)
    return stretch(read_samples(file, channels))


def _apart(sources: tuple[str, str]) -> tuple[tuple[str, str], tuple[Channels, Channels]]:
    """Part the paths of two sources from what to read there."""
    first, second = (source.removesuffix(_ALPHA) for source in sources)
    one, other = (("alpha" if source.endswith(_ALPHA) else "colour") for source in sources)
    return (first, second), (cast(Channels, one), cast(Channels, other))


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
