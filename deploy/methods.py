"""The methods of a comparison: the folders of their fused images, their names and their pixels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data import Pair, read_pixels
from ..data.pairs import find_fused, named_folders
from ..runtime.errors import UserError

Methods: TypeAlias = Mapping[str, Sequence[Path]]
"""For each method's name the files of its fused images, one for each pair in the order of the pairs."""


def find_methods(folders: Sequence[str], pairs: Sequence[Pair]) -> dict[str, list[Path]]:
    """Find the fused images of several methods.

    Args:
        folders: `FOLDER` or `NAME=FOLDER` for each method; without a name the method is called like its folder.
        pairs: The pairs that every folder must have an image of.

    Returns:
        The files by the method's name, in the order of the folders.

    Raises:
        UserError: If two methods have one name, or a folder is missing or lacks images.
    """
    names = [pair.name for pair in pairs]
    return {name: find_fused(folder, names) for name, folder in named_folders(folders).items()}


def check_sizes(pairs: Sequence[Pair], methods: Methods) -> None:
    """Check from the files' headers that all images of each pair have one size.

    Args:
        pairs: The pairs.
        methods: The fused images.

    Raises:
        UserError: If there is no pair, a file cannot be read, or an image differs in size from the first source.
    """
    if not pairs:
        raise UserError("there is no pair to compare; check the folders")
    for pair, *images in zip(pairs, *methods.values(), strict=True):
        width, height = _size(pair.first)
        for path in (pair.second, *images):
            size = _size(path)
            if size != (width, height):
                raise UserError(
                    f"the images of {pair.name} have two sizes: {pair.first} is {width}x{height}, {path} is "
                    f"{size[0]}x{size[1]}; bring them to one size"
                )


def read_images(pairs: Sequence[Pair], methods: Methods) -> Iterator[list[NDArray[np.uint8]]]:
    """Read the images of one pair after the other, all with 8 bits.

    Args:
        pairs: The pairs.
        methods: The fused images.

    Yields:
        For each pair: first source, second source and the image of each method, (H, W) or (H, W, 3).
    """
    for pair, *fused in zip(pairs, *methods.values(), strict=True):
        yield [_read_8_bits(path) for path in (pair.first, pair.second, *fused)]


def _read_8_bits(path: Path) -> NDArray[np.uint8]:
    pixels = read_pixels(path)
    return np.rint(pixels / 257).astype(np.uint8) if pixels.dtype == np.uint16 else pixels.astype(np.uint8, copy=False)


def _size(path: Path) -> tuple[int, int]:
    """Width and height; a file without a readable header gets the error that reading it would raise."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError):
        height, width = read_pixels(path).shape[:2]
        return width, height
