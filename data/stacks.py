"""Stacks of image files: three or more images of one scene, such as exposures, matched as pairs are."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from ..runtime.errors import UserError
from .images import Channels, Pixels
from .pairs import Pair, find_pairs, match_pairs, read_image
from .stretch import Stretch


class Stack(NamedTuple):
    """Three or more image files of one scene, aligned pixel by pixel.

    Attributes:
        channels: What to read of each file: its colour or its alpha channel.
        stretches: How to stretch the samples of each file, if it has more than 8 bits.

    Example:
        >>> files = Path("under/1.png"), Path("mid/1.png"), Path("over/1.png")
        >>> Stack("1", files, ("colour",) * 3, (None,) * 3).files[1].parent.name
        'mid'
    """

    name: str
    files: tuple[Path, ...]
    channels: tuple[Channels, ...]
    stretches: tuple[Stretch | None, ...]

    def read(self) -> tuple[Pixels, ...]:
        """Read all images, (H, W) or (H, W, 3) each, uint8 or uint16.

        Raises:
            UserError: If one of them cannot be read; see `read_pixels`.
        """
        return tuple(map(read_image, self.files, self.channels, self.stretches))


def find_stacks(
    root: Path, task: str, split: str | None = None, *, folders: Sequence[str], stretch: bool = False
) -> list[Stack]:
    """Find the stacks of a data set in three or more of its folders; see `find_pairs`.

    Raises:
        UserError: If there is no such folder, its images do not pair with those of the first, or two images of a stack
            are one file.

    Example:
        >>> import tempfile
        >>> from timfuse.data import write_scenes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_scenes(Path(folder), 2, task="multi-focus", stack=True, height=32, width=32, seed=0)
        ...     stacks = find_stacks(Path(folder), "multi-focus", folders=["near", "mid", "far"])
        >>> [stack.name for stack in stacks]
        ['scene_00000', 'scene_00001']
    """
    return _joined(folders, lambda one, other: find_pairs(root, task, split, folders=(one, other), stretch=stretch))


def match_stacks(sources: Sequence[str], *, stretch: bool = False) -> list[Stack]:
    """Stack the images of three or more sources by name, or single files whatever their names; see `match_pairs`.

    Args:
        sources: A file, a folder or a glob pattern for each source.

    Raises:
        UserError: If there is no such path, its images do not pair with those of the first, or two images of a stack
            are one file.

    Example:
        >>> import tempfile
        >>> from timfuse.data import write_scenes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sources = write_scenes(Path(folder), 2, task="multi-focus", stack=True, height=32, width=32, seed=0)
        ...     stacks = match_stacks([str(source) for source in sources])
        >>> [file.parent.name for file in stacks[0].files]
        ['near', 'mid', 'far']
    """
    return _joined(sources, lambda one, other: match_pairs(one, other, stretch=stretch))


def _joined(sources: Sequence[str], pair_up: Callable[[str, str], Sequence[Pair]]) -> list[Stack]:
    """Join the pairs of the first source with each of the others, which have the same images first."""
    first, *others = sources
    found: list[Sequence[Pair]] = []
    for other in others:
        try:
            found.append(pair_up(first, other))
        except UserError as error:
            raise UserError(f"{first} and {other}: {error}") from None
    partners = [{pair.first: pair for pair in pairs} for pairs in found]
    for other, pairs in zip(others, partners, strict=True):
        if pairs.keys() != partners[0].keys():
            raise UserError(f"{first} has other images with {others[0]} than with {other}; put them into one place")
    return [_stack(pair.name, [of_source[pair.first] for of_source in partners]) for pair in found[0]]


def _stack(name: str, pairs: Sequence[Pair]) -> Stack:
    files = (pairs[0].first, *(pair.second for pair in pairs))
    channels = (pairs[0].channels[0], *(pair.channels[1] for pair in pairs))
    for (one, kind), (other, other_kind) in combinations(zip(files, channels, strict=True), 2):
        if kind == other_kind and one.samefile(other):
            raise UserError(f"two sources of {name} are the file {other}; name different ones")
    return Stack(name, files, channels, (pairs[0].stretches[0], *(pair.stretches[1] for pair in pairs)))
