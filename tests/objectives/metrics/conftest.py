"""Pictures made with whole numbers alone, the same on every machine."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


def make_picture(height: int, width: int, seed: int) -> Tensor:
    """A slanted wave with texture, a dark hole and a saturated patch: (1, 1, height, width) uint8."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    wave = ((3 + seed) * rows + (5 - seed) * columns) % 360
    wave = torch.minimum(wave, 360 - wave)  # 0..180
    texture = (7919 * rows + 104729 * columns + (31 + seed) * rows * columns) * 2654435761 % 2**32 // 2**26  # 0..63
    levels = (wave + texture + 12 * seed).clamp(0, 255)
    levels[height // 8 : height // 3, width // 8 : width // 3] = 255
    levels[height // 2 : height // 2 + height // 5, seed * width // 6 : (seed + 2) * width // 6] = 0
    return levels.to(torch.uint8)[None, None]


@pytest.fixture(scope="session")
def picture() -> Callable[[int, int, int], Tensor]:
    return make_picture


@pytest.fixture(scope="session")
def triple() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Fused picture and both sources of a size; the fused one is near the brighter source."""

    def make(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        first, second, third = (make_picture(height, width, seed + index) for index in range(3))
        mixed = (3 * torch.maximum(first, second).int() + third.int()) // 4
        return mixed.to(torch.uint8), first, second

    return make
