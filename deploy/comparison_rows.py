"""The rows of a comparison: the pairs that are shown, their images, and the regions to enlarge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data import Pair, luma
from ..runtime.errors import UserError, printable
from .methods import Methods, read_images
from .zoom_regions import Region, choose_regions

REGION_COLOURS = ("#ff8c1a", "#1fc7f2", "#e85bd8", "#7ddc3f")


@dataclass(frozen=True)
class Row:
    """One pair of a comparison.

    Args:
        name: Name of the pair as text, to print above its images.
        images: First source, second source and the image of each method, (H, W) or (H, W, 3).
        regions: Regions to enlarge, the same in every image.
    """

    name: str
    images: tuple[NDArray[np.uint8], ...]
    regions: tuple[Region, ...]


def choose_pairs(pairs: Sequence[Pair], names: Sequence[str] | None = None, limit: int = 6) -> list[Pair]:
    """Choose the pairs to show, by their names or evenly spread, because neighbours are often frames of one video.

    Args:
        pairs: All pairs, in the order of their names.
        names: Names of the pairs to show, in order; default: an even spread.
        limit: Largest number of pairs without names, at least 1.

    Returns:
        The pairs to show.

    Raises:
        UserError: If no pair has one of the names.

    Example:
        >>> from pathlib import Path
        >>> pairs = [Pair(name, Path(f"ir/{name}.png"), Path(f"vis/{name}.png")) for name in "abcdefghi"]
        >>> [pair.name for pair in choose_pairs(pairs, limit=3)]
        ['b', 'e', 'h']
    """
    if names is None:
        count = min(limit, len(pairs))
        return [pairs[(2 * index + 1) * len(pairs) // (2 * count)] for index in range(count)]
    known = {pair.name: pair for pair in pairs}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"no pair is called {unknown[0]}; there are {', '.join(list(known)[:3])}, …")
    return [known[name] for name in names]


def labels(pairs: Sequence[Pair], methods: Methods) -> list[str]:
    """Name the columns: the sources by their folders if these differ, the methods by their names."""
    sources = [pairs[0].first.resolve().parent.name, pairs[0].second.resolve().parent.name]
    if len({*sources, *methods}) < 2 + len(methods) or not all(sources):
        sources = ["first source", "second source"]
    return [printable(name) for name in (*sources, *methods)]


def read_rows(pairs: Sequence[Pair], methods: Methods, zoom: Sequence[Region] = ()) -> Iterator[Row]:
    """Read the images of each pair and choose what to enlarge.

    Args:
        zoom: Regions to enlarge in every pair; default: two in each, where the methods differ most.

    Yields:
        A row for each pair.

    Raises:
        UserError: If a file cannot be read, the images of a pair differ in size, or a region exceeds an image.
    """
    for pair, images in zip(pairs, read_images(pairs, methods), strict=True):
        height, width = images[0].shape[:2]
        for region in zoom:
            _, _, right, bottom = region.box
            if right > width or bottom > height:
                raise UserError(
                    f"the region {','.join(map(str, region))} exceeds {pair.name}, which is {width}x{height}; "
                    "choose one inside"
                )
        grey = [luma(image).astype(np.uint8, copy=False) for image in images]
        yield Row(printable(pair.name), tuple(images), tuple(zoom or choose_regions(grey[:2], grey[2:])))
