"""Finding the image pairs of a folder and checking every one of them before work starts."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .images import SUFFIXES, Pixels, luma, read_pixels

INFRARED_VISIBLE = (
    ("ir", "vis"),
    ("ir", "vi"),
    ("Ir", "Vis"),
    ("IR", "VIS"),
    ("inf", "vis"),
    ("infrared", "visible"),
    ("thermal", "visible"),
    ("cropinfrared", "crop_LR_visible"),
)
"""The names of the two folders in the field's infrared-visible sets, in the order in which they are tried."""

_RAW_COUNTS = 2**14


class Pair(NamedTuple):
    """Two image files of one scene, aligned pixel by pixel."""

    name: str
    first: Path
    second: Path


class CheckedPairs:
    """Pairs that have all been read once; as many as the cache holds stay decoded, the others are read again.

    Args:
        pairs: The checked pairs.
        cached: For each pair its decoded luma, or None where the cache was full.
    """

    def __init__(self, pairs: Sequence[Pair], cached: Sequence[tuple[Pixels, Pixels] | None]) -> None:
        self.names = tuple(pair.name for pair in pairs)
        self._pairs = tuple(pairs)
        self._cached = tuple(cached)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:  # two (H, W) arrays, uint8 or uint16
        return self._cached[index] or _read(self._pairs[index])


def find_pairs(
    root: Path, folders: Sequence[tuple[str, str]] = INFRARED_VISIBLE, names: Path | None = None
) -> list[Pair]:
    """Pair the images of two folders by file name; the extensions may differ.

    Args:
        root: The folder of the data set, which holds the two folders.
        folders: Names of the two folders; the first couple of which both exist is taken.
        names: A text file with one name per line (with or without extension); all pairs where None.

    Returns:
        The pairs, sorted by name.

    Raises:
        UserError: If a folder is missing or empty, a file has no partner or two files share a name.
    """
    if not root.is_dir():
        raise UserError(f"the data folder {root} does not exist; check the path")
    couple = next(((root / a, root / b) for a, b in folders if (root / a).is_dir() and (root / b).is_dir()), None)
    if couple is None:
        tried = ", ".join(f"{a}/ + {b}/" for a, b in folders)
        raise UserError(f"{root} holds no pair of image folders; looked for {tried}")
    first, second = (_images(folder) for folder in couple)
    if names is not None:
        wanted = read_names(names, first.keys() | second.keys())
    else:
        wanted = sorted(first.keys() | second.keys())
    alone = [f"{couple[0].name}/{first[name].name}" for name in wanted if name not in second]
    alone += [f"{couple[1].name}/{second[name].name}" for name in wanted if name not in first]
    if alone:
        raise UserError(f"{root}: {_few(alone)} without a partner of the same name; add the partners or remove them")
    return [Pair(name, first[name], second[name]) for name in wanted]


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


def check_pairs(
    pairs: Sequence[Pair],
    minimum_size: int,
    *,
    cache_megabytes: int = 2048,
    progress: Progress | None = None,
) -> CheckedPairs:
    """Read every file of every pair, so that bad input is reported before training and not in its middle.

    Args:
        pairs: The pairs, at least one.
        minimum_size: Height and width, in pixels, that every image must have at least.
        cache_megabytes: Decoded pairs beyond this many megabytes are read again from disk when needed.
        progress: Advanced by one after each pair.

    Returns:
        The pairs as integer luma.

    Raises:
        UserError: If a file is unreadable, the images of a pair differ in size or are too small, or all
            16-bit images of one side hold raw sensor counts, which would come out nearly black.
    """
    cached: list[tuple[Pixels, Pixels] | None] = []
    room = cache_megabytes * 2**20
    brightest: list[int | None] = [None, None]  # over the 16-bit images of each side
    executor = ThreadPoolExecutor()
    try:
        for pair, images in zip(pairs, executor.map(_read, pairs), strict=True):
            _check_sizes(pair, images, minimum_size)
            for side, image in enumerate(images):
                if image.dtype == "uint16":
                    brightest[side] = max(brightest[side] or 0, int(image.max()))
            room -= images[0].nbytes + images[1].nbytes
            cached.append(images if room >= 0 else None)
            if progress is not None:
                progress.advance()
    finally:
        executor.shutdown(cancel_futures=True)
    for file, maximum in zip((pairs[0].first, pairs[0].second), brightest, strict=True):
        if maximum is not None and maximum < _RAW_COUNTS:
            raise UserError(
                f"all 16-bit images in {file.parent} stay below {_RAW_COUNTS} of 65535 (raw sensor counts, "
                f"largest {maximum}); stretch them to the full 16 bits or save them with 8"
            )
    return CheckedPairs(pairs, cached)


def _images(folder: Path) -> dict[str, Path]:
    """Map name to image file; hidden files and other kinds of files are passed over."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(f"{folder} holds both {found[path.stem].name} and {path.name}; keep one file for each name")
        found[path.stem] = path
    if not found:
        raise UserError(f"{folder} holds no image; put {', '.join(SUFFIXES)} files there")
    return found


def _read(pair: Pair) -> tuple[Pixels, Pixels]:
    return luma(read_pixels(pair.first)), luma(read_pixels(pair.second))


def _check_sizes(pair: Pair, images: tuple[Pixels, Pixels], minimum_size: int) -> None:
    (height, width), second_shape = images[0].shape, images[1].shape
    if (height, width) != second_shape:
        raise UserError(
            f"the pair {pair.name} has two sizes: {pair.first} is {width}x{height}, {pair.second} is "
            f"{second_shape[1]}x{second_shape[0]}; bring both to one aligned size"
        )
    if min(height, width) < minimum_size:
        raise UserError(
            f"{pair.first} is {width}x{height}, the minimum is {minimum_size}x{minimum_size}; "
            "remove the pair or choose a smaller crop"
        )


def _few(items: Sequence[str]) -> str:
    shown = ", ".join(items[:3])
    return shown if len(items) <= 3 else f"{shown} and {len(items) - 3} more"
