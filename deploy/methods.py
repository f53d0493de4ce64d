"""The methods of a comparison: their names, their fused images and the pixels of these.

Wherever `pairs` and `methods` come together, there is at least one pair, and each method has an image for each.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data import Pair, Stack, read_pixels
from ..data.images import read_size, with_8_bits
from ..data.pairs import find_fused, named_folders
from ..runtime.errors import UserError

Methods: TypeAlias = Mapping[str, Sequence[Path]]
"""The files of the fused images of each method, by its name, in the order of the pairs."""


def find_methods(folders: Sequence[str], pairs: Sequence[Pair | Stack]) -> dict[str, list[Path]]:
    """Find the fused images of several methods.

    Args:
        folders: NAME=FOLDER for each method, or FOLDER for a method with the name of the folder.

    Raises:
        UserError: If two methods have the same name, or a folder is missing or lacks images.

    Example:
        >>> import tempfile
        >>> from timfuse.data import match_pairs, write_scenes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first, second = write_scenes(Path(folder), 1, height=64, width=64, seed=0)
        ...     [*find_methods([f"copy={first}", str(second)], match_pairs(first, second))]
        ['copy', 'vis']
    """
    names = [pair.name for pair in pairs]
    return {name: find_fused(folder, names) for name, folder in named_folders(folders).items()}


def read_images(pairs: Sequence[Pair | Stack], methods: Methods) -> Iterator[list[NDArray[np.uint8]]]:
    """Check from the headers of all files that the images of each pair have one size, and read them pair by pair.

    Returns:
        For each pair the sources and the image of each method, (H, W) or (H, W, 3), with 8
        bits.

    Raises:
        UserError: If there is no pair, a file cannot be read, or an image has another size than the first source.
    """
    if not pairs:
        raise UserError("there is no pair to compare; check the folders")
    rows = [(*pair.files[1:], *fused) for pair, *fused in zip(pairs, *methods.values(), strict=True)]
    for pair, others in zip(pairs, rows, strict=True):
        first, kinds = pair.files[0], pair.channels
        height, width = read_size(first, kinds[0])
        for place, path in enumerate(others, 1):
            size = read_size(path, kinds[place] if place < len(kinds) else "colour")
            if size != (height, width):
                raise UserError(
                    f"the images of {pair.name} have two sizes: {first} is {width}x{height}, {path} is "
                    f"{size[1]}x{size[0]}; bring them to one size"
                )
    return (
        [with_8_bits(pixels) for pixels in (*pair.read(), *map(read_pixels, fused))]
        for pair, *fused in zip(pairs, *methods.values(), strict=True)
    )
