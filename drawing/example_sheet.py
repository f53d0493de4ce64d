"""A sheet of example images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import write_pixels

_GAP = 4  # pixels between two examples


def draw_examples(examples: Mapping[str, NDArray[np.uint8]], folder: Path) -> list[Path]:
    """Write images below each other, pixel by pixel, into examples.png in a folder.

    Args:
        examples: Images of any sizes by name, all (H, W) or all (H, W, 3). Without any, nothing is written.

    Raises:
        UserError: If the file cannot be written.
    """
    if not examples:
        return []
    images = list(examples.values())
    width = max(image.shape[1] for image in images)
    height = sum(image.shape[0] + _GAP for image in images) - _GAP
    sheet = np.full((height, width, *images[0].shape[2:]), 255, np.uint8)
    top = 0
    for image in images:
        sheet[top : top + image.shape[0], : image.shape[1]] = image
        top += image.shape[0] + _GAP
    path = folder / "examples.png"
    write_pixels(path, sheet)
    return [path]
