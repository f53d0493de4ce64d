"""The regions of a pair that a comparison enlarges."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..runtime.errors import UserError

_SHARE = 0.2  # width of a region, as a part of the width of the image
_ASPECT = 4 / 3
_SMALLEST = 8  # width and height of a region, in pixels
_APART = 1.25  # distance between two regions, in their size
_POSITIONS = 160  # least number of positions along the longer side


class Region(NamedTuple):
    """A rectangle in an image, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The left, upper, right and lower edge, as pillow expects them."""
        return self.x, self.y, self.x + self.width, self.y + self.height


def choose_regions(sources: Sequence[NDArray[np.uint8]], fused: Sequence[NDArray[np.uint8]]) -> list[Region]:
    """Choose a region for each source, where it has structure and the structures of the fused images differ.

    The structure of an image is its difference from its mean over a neighbourhood as large as the region; a sky of
    another brightness has none. The score of a region is the mean structure of the source times the mean standard
    deviation of the structures of the fused images.

    Args:
        fused: Luma of the fused images, (H, W). The standard deviation over a single one includes the sources.

    Returns:
        A region for the first source and one for the second, apart from each other; fewer without room or difference.
    """
    height, width = sources[0].shape
    size = _window(width, height)
    # A coarse grid is fast and averages noise.
    stride = max(1, min(max(width, height) // _POSITIONS, *size))
    images = F.avg_pool2d(torch.from_numpy(np.stack([*sources, *fused])).float()[:, None], stride)
    window = size[1] // stride, size[0] // stride
    structure = images - _neighbourhood_mean(images, window)  # (images, 1, rows, columns)
    spread = (structure[2:] if len(fused) > 1 else structure).std(dim=0, correction=0, keepdim=True)
    differ = F.avg_pool2d(spread, window, stride=1)
    score = F.avg_pool2d(structure[:2].abs(), window, stride=1) * differ  # (2, 1, positions, positions)
    regions: list[Region] = []
    for scores in score[:, 0]:
        row, column = divmod(int(scores.argmax()), scores.shape[1])
        if scores[row, column] <= 0:
            continue
        x, y = min(column * stride, width - size[0]), min(row * stride, height - size[1])
        regions.append(Region(x, y, *size))
        # A window that begins closer would overlap or touch this one.
        reach_x, reach_y = (math.ceil(_APART * side / stride) for side in size)
        score[..., max(0, row - reach_y + 1) : row + reach_y, max(0, column - reach_x + 1) : column + reach_x] = -1
    return regions


def parse_region(text: str) -> Region:
    """Read a region from a text such as "120,80,64,48": x, y, width and height in pixels."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts) or "0" in (parts[2], parts[3]):
        raise UserError(f"{text} is no region; write X,Y,WIDTH,HEIGHT in pixels, such as 120,80,64,48")
    return Region(*(int(part) for part in parts))


def _window(width: int, height: int) -> tuple[int, int]:
    """Compute width and height of the regions of an image."""
    wide = min(width, max(_SMALLEST, round(width * _SHARE)))
    return wide, min(height, max(_SMALLEST, round(wide / _ASPECT)))


def _neighbourhood_mean(images: Tensor, window: tuple[int, int]) -> Tensor:
    """Average over a window around each pixel, along one axis and then along the other."""
    for around in ((window[0] // 2 * 2 + 1, 1), (1, window[1] // 2 * 2 + 1)):
        padding = (around[0] // 2, around[1] // 2)
        images = F.avg_pool2d(images, around, stride=1, padding=padding, count_include_pad=False)
    return images
