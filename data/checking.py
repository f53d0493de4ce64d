"""Reading every pair once before work starts, so that bad input is reported then and not in the middle."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .fingerprint import fingerprint, fingerprint_files
from .images import Pixels, luma, read_pixels
from .pairs import Pair

_RAW_COUNTS = 2**14


class CheckedPairs:
    """Pairs that have all been read once; as many as the cache holds stay decoded, the others are read again.

    Args:
        pairs: The checked pairs.
        sizes: For each pair its height and width.
        cached: For each pair its decoded luma, or None where the cache was full.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        sizes: Sequence[tuple[int, int]],
        cached: Sequence[tuple[Pixels, Pixels] | None],
    ) -> None:
        self.names = tuple(pair.name for pair in pairs)
        self._pairs, self._sizes, self._cached = tuple(pairs), tuple(sizes), tuple(cached)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:  # two (H, W) arrays, uint8 or uint16
        return self._cached[index] or _read(self._pairs[index])

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair."""
        return self._sizes[index]

    def fingerprint(self) -> str:
        """Tell these pairs from all others by their names and the contents of their files."""
        files = fingerprint_files(file for pair in self._pairs for file in (pair.first, pair.second))
        return fingerprint((self.names, files))


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
    sizes: list[tuple[int, int]] = []
    cached: list[tuple[Pixels, Pixels] | None] = []
    room = cache_megabytes * 2**20
    brightest: list[int | None] = [None, None]  # over the 16-bit images of each side
    executor = ThreadPoolExecutor()
    try:
        for pair, images in zip(pairs, executor.map(_read, pairs), strict=True):
            sizes.append(_check_sizes(pair, images, minimum_size))
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
    return CheckedPairs(pairs, sizes, cached)


def _read(pair: Pair) -> tuple[Pixels, Pixels]:
    return luma(read_pixels(pair.first)), luma(read_pixels(pair.second))


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
