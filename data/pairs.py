"""Pairs of image files: in a data set of any usual layout, in two folders, and fused images with their pairs."""

import os
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast

from ..genotypes.choices import check_choice
from ..runtime.errors import UserError
from ..runtime.files import read_text
from .images import SUFFIXES, Channels, Pixels, has_8_bits, read_pixels, read_samples
from .layouts import LAYOUTS, Layout, divided, find_files, find_images
from .partners import Sides, by_number, find_partners
from .patterns import Match, find_matches
from .stretch import Stretch, find_stretch

_CHANNELS: tuple[Channels, ...] = ("alpha", "thermal")  # as in FOLDER:alpha
_LONGEST = 255  # characters of a name or a path in a line
_NAME_THE_FOLDERS = "name its two folders with --sources DIR DIR, or in a config with sources=[DIR, DIR]"
_READ = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


class Pair(NamedTuple):
    """Two image files of one scene, aligned pixel by pixel.

    Attributes:
        channels: What to read of each file: its colour, its alpha channel, or the temperatures of a radiometric JPEG.
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

    @property
    def files(self) -> tuple[Path, Path]:
        """The files of both sources."""
        return self.first, self.second

    def swapped(self) -> "Pair":
        """Return the pair with the second image as first."""
        return Pair(self.name, self.second, self.first, self.channels[::-1], self.stretches[::-1])

    def read(self) -> tuple[Pixels, Pixels]:
        """Read both images, (H, W) or (H, W, 3), uint8 or uint16.

        Raises:
            UserError: If one of them cannot be read; see `read_pixels`.
        """
        first, second = map(read_image, self.files, self.channels, self.stretches)
        return first, second


def find_pairs(
    root: Path,
    task: str = "infrared-visible",
    split: str | None = None,
    *,
    folders: tuple[str, str] | None = None,
    stretch: bool = False,
) -> list[Pair]:
    """Find the pairs of a data set in any of the task's `LAYOUTS`, or in two folders of the data set.

    Numbered images whose names differ otherwise, as FLIR_0001 and 0001_vis, pair by their numbers and are called like
    the first.

    Args:
        task: A key of `genotypes.TASKS`; any name if `folders` are given.
        split: The part of the data set to take: a folder of this name, in `root` or below the folders of the sources,
            or the pairs that `<split>.txt` in `root` names. None takes all pairs; of a data set that is divided into
            folders, the pairs of `train`.
        folders: Folders in `root` with the images of the first and the second source, instead of the task's layouts.
            FOLDER:alpha is the alpha channel of the images in FOLDER, in which some data sets keep a second image,
            FOLDER:thermal the temperatures of radiometric JPEGs.
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
        remedy = _NAME_THE_FOLDERS if folders is None else "check the folders"
        raise UserError(_nothing_found(root, task, parts if split else layouts, remedy))
    layout, sides = found
    wanted = None
    if split is not None and part is None:
        names = root / f"{split}.txt"
        if not names.exists():
            raise UserError(
                f"{root} is not divided: there is neither a folder {split}/ nor {split}.txt with pair names"
            )
        wanted = read_names(names, sides.first.keys() | sides.second.keys())
    images = [[file for files in side.values() for file in files] for side in sides]  # of the other parts, too
    return _complete(_join(root, layout, sides, wanted), channels, images, stretch=stretch)


def match_pairs(first: str | Path, second: str | Path, *, stretch: bool = False) -> list[Pair]:
    """Pair the images of two sources by name, or two single files whatever their names.

    Where the names differ, the images of two patterns pair by what the wildcards stand for, as in `*-A.jpg` and
    `*-B.jpg`, and numbered images by their numbers, as FLIR_0001 and 0001_vis.

    Args:
        first: A file, a folder or a glob pattern for the first source. With ":alpha" at its end, it is the alpha
            channel of these images, in which some data sets keep a second image, with ":thermal" the temperatures of
            radiometric JPEGs.
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
    paths, channels = _apart((str(first), str(second)))
    arguments = Path(paths[0]), Path(paths[1])
    if all(map(os.path.isfile, arguments)):
        return _complete(
            [Pair(arguments[0].stem, *arguments)], channels, [[file] for file in arguments], stretch=stretch
        )
    images = [_images_of(argument) for argument in arguments]
    for argument, own, other in zip(arguments, images, reversed(images), strict=True):
        if not own:
            raise _no_image(argument, {match.path.stem for match in other})
    means, sides = find_partners(images)
    if sides.first.keys() != sides.second.keys():
        raise _without_partner(arguments, images, means, sides)
    pairs: dict[str, Pair] = {}
    for key in sorted(sides.first):
        file, partner = _only(sides.first[key]), _only(sides.second[key])
        name = "_".join(dict.fromkeys(filter(None, key.split("/")))) or file.stem
        if name in pairs:
            raise UserError(f"{pairs[name].first} and {file} would both be called {name}; rename one of them")
        pairs[name] = Pair(name, file, partner)
    files = [[pair.first for pair in pairs.values()], [pair.second for pair in pairs.values()]]
    return _complete(list(pairs.values()), channels, files, stretch=stretch)


def read_image(file: Path, channels: Channels, stretch: Stretch | None) -> Pixels:
    """Read one image of a pair, (H, W) or (H, W, 3), uint8 or uint16; see `Pair`.

    Raises:
        UserError: If it cannot be read; see `read_pixels`.
    """
    if stretch is None or has_8_bits(file, channels):
        return read_pixels(file, channels)
    return stretch(read_samples(file, channels))


def find_fused(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find the fused image of each pair by name, or by number where no name fits, as 001_fused for 001.

    Args:
        folder: The fused images of one method, with any suffix; further images are ignored.

    Raises:
        UserError: If the folder does not exist or is empty, or has no image or two images for a pair.
    """
    if not folder.is_dir():
        raise UserError(f"the folder of fused images {folder} does not exist; check the path")
    images = find_images(folder, "NAME")
    if not images:
        raise _no_image(folder, names)
    images = by_number(Sides({name: [] for name in names}, images)).second
    missing = [name for name in names if name not in images]
    if missing:
        remedy = _not_read(_unread(folder, "NAME", missing)) or "fuse these too, under the names of their pairs"
        raise UserError(
            f"{folder} lacks the fused images of {len(missing)} of {len(names)} pairs ({_few(missing)}); {remedy}"
        )
    return [_only(images[name]) for name in names]


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


def read_names(path: Path, known: set[str], *, strict: bool = True) -> list[str]:
    """Read a list of pairs and sort their names.

    A line has a name, or the path of one or both images, with or without suffix.

    Args:
        strict: Whether an unknown name is an error; or else it is left out.

    Raises:
        UserError: If the file cannot be read, is empty or has an unknown name.
    """
    names = {_name_in(line.strip(), known) for line in read_text(path).splitlines() if line.strip()}
    if not names:
        raise UserError(f"{path} names no pair; write one pair name per line or remove the file")
    missing = sorted(names - known)
    if not strict:
        return sorted(names & known)
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
        if path.is_absolute() or ".." in path.parts or "NAME" in folder or set("*?") & set(folder):
            raise UserError(f"{folder!r} cannot be a folder of a source; name one below the data folder, like 'ir'")
    paths, channels = _apart(folders)
    first, second = (str(PurePosixPath(path) / "NAME") for path in paths)
    if first == second and channels[0] == channels[1]:
        raise UserError(f"both sources are in {folders[0]!r}; name two folders")
    return first, second


def _check_folders(root: Path, layouts: Sequence[Layout]) -> None:
    """Raise the error for the folder, of the two that a user named, that is missing or empty in all layouts."""
    sides = list(zip(*layouts, strict=True))
    for side, other in (sides, reversed(sides)):
        if not any(find_images(root, pattern) for pattern in side):
            paths = [root / PurePosixPath(pattern).parent for pattern in side]
            for path in paths:
                if path.is_dir():
                    raise _no_image(path, {name for pattern in other for name in find_images(root, pattern)})
            raise UserError(f"the folder {paths[0]} does not exist; check its name")


def _search(root: Path, layouts: Sequence[Layout]) -> tuple[Layout, Sides] | None:
    """Find the images of both sources in the one layout that the data set has; None if it has none of them."""
    images = {pattern: find_images(root, pattern) for pattern in dict.fromkeys(chain(*layouts))}
    present = {layout: Sides(*(images[pattern] for pattern in layout)) for layout in layouts}
    present = {layout: sides for layout, sides in present.items() if all(sides)}
    chosen = {layout: sides for layout, sides in present.items() if sides.shared()}
    if not chosen:
        numbered = {layout: by_number(sides) for layout, sides in present.items()}
        chosen = {layout: sides for layout, sides in numbered.items() if sides.shared()}
    if len(chosen) > 1:
        one, *_, other = map(" + ".join, chosen)
        raise UserError(
            f"{root} holds pairs as {one} and as {other}; move one kind of them away, or {_NAME_THE_FOLDERS}"
        )
    # A layout whose sources share no name is the last resort: joining its images raises an error with the names.
    return next(iter((chosen or present).items()), None)


def _join(root: Path, layout: Layout, sides: Sides, wanted: Sequence[str] | None = None) -> list[Pair]:
    """Make the pairs of all names, or of those that are wanted."""
    names = sorted(sides.first.keys() | sides.second.keys()) if wanted is None else wanted
    alone = [
        (name, pattern, path)
        for own, other, pattern in ((sides.first, sides.second, layout[1]), (sides.second, sides.first, layout[0]))
        for name in names
        if name not in other
        for path in own[name]
    ]
    if alone:
        files = _few([str(path.relative_to(root)) for *_, path in alone])
        unread = [
            path.relative_to(root)
            for pattern in dict.fromkeys(pattern for _, pattern, _ in alone)
            for path in _unread(root, pattern, {name for name, side, _ in alone if side == pattern})
        ]
        means = "name" if sides.shared() else "name or number"
        remedy = _not_read(unread) or "add the partners or remove them"
        raise UserError(f"{root}: {files} without a partner of the same {means}; {remedy}")
    return [Pair(name, _only(sides.first[name]), _only(sides.second[name])) for name in names]


def _without_partner(
    arguments: Sequence[Path], images: Sequence[Sequence[Match]], means: str, sides: Sides
) -> UserError:
    """Make the error for images without a partner."""
    counts, unread = [], []
    for index, argument in enumerate(arguments):
        own, other = sides[index], sides[1 - index]
        alone = [path for name, files in own.items() if name not in other for path in files]
        if alone:
            counts.append(f"{argument} has {len(alone)} without a partner ({_few([path.name for path in alone])})")
        for folder in dict.fromkeys(match.path.parent for match in images[1 - index]):
            unread += _unread(folder, "NAME", {path.stem for path in alone})
    remedy = _not_read(unread) or "rename or remove them"
    return UserError(f"the images do not pair by {means}: {', '.join(counts)}; {remedy}")


def _images_of(argument: Path) -> list[Match]:
    """List the images of a file, a folder or a glob pattern."""
    if os.path.isdir(argument):
        return [Match(path) for files in find_images(argument, "NAME").values() for path in files]
    return [match for match in find_matches(argument) if match.path.suffix.lower() in SUFFIXES and match.path.is_file()]


def _no_image(path: Path, names: Collection[str]) -> UserError:
    """Make the error for a path without images; it lists files of other formats that have one of the names."""
    folder = os.path.isdir(path)
    files = _unread(path, "NAME", names) if folder else _other_formats(match.path for match in find_matches(path))
    if unread := _not_read(files):
        return UserError(f"{path} holds no image; {unread}" if folder else unread)
    if os.path.exists(path):
        return UserError(f"{path} holds no image; put {_READ} files there")
    return UserError(f"there is no image {path}; check the path")


def _unread(root: Path, pattern: str, names: Collection[str]) -> list[Path]:
    """Find the files of other formats that have one of the names."""
    found = find_files(root, pattern, None)
    return _other_formats(path for name, paths in found.items() if name in names for path in paths)


def _other_formats(paths: Iterable[Path]) -> list[Path]:
    """Keep the files whose suffix is that of no image."""
    return [path for path in paths if path.suffix and path.suffix.lower() not in SUFFIXES and path.is_file()]


def _not_read(files: Sequence[Path]) -> str:
    """Say of which formats files are that are not read, and what to do; "" if there are none."""
    suffixes = sorted({path.suffix.lower() for path in files})
    if not suffixes:
        return ""
    are, them = ("is", "it") if len(files) == 1 else ("are", "them")
    shown = _few([str(path) for path in files])
    return f"{shown} {are} there, but timfuse does not read {', '.join(suffixes)}; save {them} as {_READ}"


def _complete(
    pairs: list[Pair], channels: tuple[Channels, Channels], images: Sequence[Sequence[Path]], *, stretch: bool
) -> list[Pair]:
    """Add how to read the files, and refuse a pair whose sources are one file: fusing it changes nothing.

    Args:
        images: The images of each source by which to stretch.
    """
    if channels[0] == channels[1]:
        for pair in pairs:
            if pair.first.samefile(pair.second):
                raise UserError(
                    f"both sources of {pair.name} are the file {pair.first}; name two different ones, or with "
                    "':alpha' at the end of one its alpha channel"
                )
    first, second = (find_stretch(files, kind, stretch=stretch) for files, kind in zip(images, channels, strict=True))
    return [pair._replace(channels=channels, stretches=(first, second)) for pair in pairs]


def _apart(sources: tuple[str, str]) -> tuple[tuple[str, str], tuple[Channels, Channels]]:
    """Part the paths of two sources from what to read there."""
    one, other = (next((name for name in _CHANNELS if source.endswith(f":{name}")), "colour") for source in sources)
    first, second = (source.removesuffix(f":{kind}") for source, kind in zip(sources, (one, other), strict=True))
    return (first, second), (cast(Channels, one), cast(Channels, other))


def _only(files: Sequence[Path]) -> Path:
    if len(files) > 1:
        one, other = files[:2]
        if one.parent == other.parent:
            raise UserError(f"{one.parent} holds both {one.name} and {other.name}; keep one file for each name")
        raise UserError(f"{one} and {other} have the same name; keep one of them, or rename it")
    return files[0]


def _nothing_found(root: Path, task: str, layouts: Sequence[Layout], remedy: str) -> str:
    looked = _few([" + ".join(layout) for layout in layouts], 6)
    sides = [side for layout in layouts for side in (layout, layout[::-1])]
    halves = [(own, other, found) for own, other in sides if (found := find_images(root, own))]
    unread = [path.relative_to(root) for _, other, found in halves for path in _unread(root, other, found)]
    half = f" and found {halves[0][0]} alone" if halves else ""
    return f"{root} holds no {task} pairs; looked for {looked}{half}; {_not_read(unread) or remedy}"


def _few(items: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(item if len(item) <= _LONGEST else f"{item[:_LONGEST]}…" for item in items[:count])
    return shown if len(items) <= count else f"{shown} and {len(items) - count} more"
