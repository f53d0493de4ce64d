"""Pairs of image files: all are read once before work starts, so that bad input is reported then and not later."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .fingerprint import fingerprint, fingerprint_files
from .images import Pixels, luma
from .masks import Mask
from .pair_batch import Objects
from .pair_source import Labels
from .pairs import Pair


@dataclass(frozen=True, eq=False)
class FolderPairs:
    """Pairs of image files that have all been read once.

    Attributes:
        pairs: The files of each pair, at least one.
        sizes: Height and width of each pair in pixels.
        cached: Decoded luma of each pair; None for pairs that did not fit into the cache and are read when needed.
        classes: Names of the classes that `boxes` or `masks` refer to.
        boxes: The objects of each pair; empty if the pairs were not opened for boxes.
        masks: The class mask (H, W) of each pair; empty if the pairs were not opened for masks.
        unlabelled: Names of the data set's further pairs, which have no label.
    """

    pairs: tuple[Pair, ...]
    sizes: tuple[tuple[int, int], ...]
    cached: tuple[tuple[Pixels, Pixels] | None, ...]
    classes: tuple[str, ...] = ()
    boxes: tuple[Objects, ...] = ()
    masks: tuple[Mask, ...] = ()
    unlabelled: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each pair."""
        return tuple(pair.name for pair in self.pairs)

    @property
    def labels(self) -> Labels | None:
        """The kind of labels that the pairs have."""
        return "boxes" if self.boxes else "masks" if self.masks else None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        return self.cached[index] or _read(self.pairs[index])

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        """Return a pair with its colours."""
        return self.pairs[index].read()

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair."""
        return self.sizes[index]

    def objects(self, index: int) -> Objects:
        """Return the objects of a pair."""
        return self.boxes[index]

    def mask(self, index: int) -> Mask:
        """Return the (H, W) class mask of a pair."""
        return self.masks[index]

    def fingerprint(self) -> str:
        """Name the pairs by their names, the contents of their files and their labels."""
        files = fingerprint_files(file for pair in self.pairs for file in (pair.first, pair.second))
        boxes = [[each.boxes.tolist(), each.classes.tolist()] for each in self.boxes]
        masks = [hashlib.blake2b(mask.tobytes()).hexdigest() for mask in self.masks]
        reading = [(pair.channels, pair.stretches) for pair in self.pairs]
        return fingerprint((self.names, files, reading, self.classes, self.unlabelled, boxes, masks))


def check_pairs(
    pairs: Sequence[Pair],
    minimum_size: int,
    *,
    cache_megabytes: int = 2048,
    progress: Progress | None = None,
) -> FolderPairs:
    """Read every file of every pair, so that bad files are reported before a long run starts.

    Args:
        minimum_size: Smallest height and width in pixels that an image may have.
        cache_megabytes: Memory for decoded pairs; the pairs beyond it are read again when needed.

    Raises:
        UserError: If a file cannot be read, or the images of a pair differ in size or are too small.
    """
    sizes: list[tuple[int, int]] = []
    cached: list[tuple[Pixels, Pixels] | None] = []
    room = cache_megabytes * 2**20
    executor = ThreadPoolExecutor()
    try:
        for pair, images in zip(pairs, executor.map(_read, pairs), strict=True):
            sizes.append(_check_sizes(pair, images, minimum_size))
            room -= images[0].nbytes + images[1].nbytes
            cached.append(images if room >= 0 else None)
            if progress is not None:
                progress.advance()
    finally:
        executor.shutdown(cancel_futures=True)
    return FolderPairs(tuple(pairs), tuple(sizes), tuple(cached))


def _read(pair: Pair) -> tuple[Pixels, Pixels]:
    first, second = pair.read()
    return luma(first), luma(second)


def _check_sizes(pair: Pair, images: tuple[Pixels, Pixels], minimum_size: int) -> tuple[int, int]:
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
    return height, width
