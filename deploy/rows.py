"""The rows of a comparison: which pairs are shown, their images, and the regions to enlarge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data import Pair, luma
from ..runtime.errors import UserError
from .methods import Methods, check_sizes, read_images
from .regions import Region, check_inside, choose_regions

REGION_COLOURS = ("#ff8c1a", "#1fc7f2", "#e85bd8", "#7ddc3f")


@dataclass(frozen=True)
class Row:
    """One pair of a comparison.

    Args:
        name: Of the pair.
        images: First source, second source and the image of each method, (H, W) or (H, W, 3).
        regions: What is enlarged, the same in every image.
    """

    name: str
    images: tuple[NDArray[np.uint8], ...]
    regions: tuple[Region, ...]


def choose_pairs(pairs: Sequence[Pair], names: Sequence[str] | None = None, limit: int = 6) -> list[Pair]:
    """Choose the pairs to show.

    Args:
        pairs: All pairs.
        names: The names of the wanted ones, in the order wanted.
        limit: Without names, at most so many, spread evenly: neighbours are often frames of one video.

    Returns:
        The chosen pairs.

    Raises:
        UserError: If a name is none of a pair.
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
    """Name the columns: the sources like their folders where these differ, the methods by their names."""
    sources = [pairs[0].first.resolve().parent.name, pairs[0].second.resolve().parent.name]
    if len({*sources, *methods}) < 2 + len(methods) or not all(sources):
        sources = ["first source", "second source"]
    return [*sources, *methods]


def read_rows(pairs: Sequence[Pair], methods: Methods, zoom: Sequence[Region] = ()) -> Iterator[Row]:
    """Read the images of each pair and settle what is enlarged.

    Args:
        pairs: The pairs.
        methods: The fused images.
        zoom: Regions for every pair; where there is none, two are chosen for each pair.

    Yields:
        A row for each pair.

    Raises:
        UserError: If a file cannot be read, the images of a pair differ in size or a region leaves one.
    """
    check_sizes(pairs, methods)
    for pair, images in zip(pairs, read_images(pairs, methods), strict=True):
        height, width = images[0].shape[:2]
        for region in zoom:
            check_inside(region, pair.name, width, height)
        grey = [luma(image).astype(np.uint8, copy=False) for image in images]
        yield Row(pair.name, tuple(images), tuple(zoom or choose_regions(grey[:2], grey[2:])))
