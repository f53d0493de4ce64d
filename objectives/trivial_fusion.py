"""Fusion without a network: what networks are compared with in validation, in benchmarks and in tables.

Each maps two sources (N, 1, H, W) in [0, 1] to the fused image.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 5
"""Levels of the Laplacian pyramid."""


def average(first: Tensor, second: Tensor) -> Tensor:
    """Average both sources.

    Example:
        >>> average(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item()
        0.5
    """
    return (first + second) / 2


def laplacian(first: Tensor, second: Tensor) -> Tensor:
    """Take the larger coefficient of two Laplacian pyramids at each pixel, and average their coarsest levels.

    References:
        Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code" (IEEE Transactions on Communications, 1983).

    Example:
        >>> image = torch.rand(1, 1, 20, 30)
        >>> torch.allclose(laplacian(image, image), image, atol=1e-6)
        True
    """
    level = torch.cat((first, second), 1)
    bands = []
    for _ in range(LEVELS):
        coarse = _halved(level)
        bands.append(level - _resized(coarse, level))
        level = coarse
    fused = level.mean(1, keepdim=True)
    for band in reversed(bands):
        a, b = band.split(1, 1)
        fused = _resized(fused, band) + torch.where(a.abs() >= b.abs(), a, b)
    return fused


TRIVIAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "average": average,
    "maximum": torch.maximum,
    "laplacian": laplacian,
}
"""The methods by their names."""


def _halved(x: Tensor) -> Tensor:
    """Blur with the binomial kernel of five taps, and keep every second row and column."""
    taps = x.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, stride=2, groups=x.shape[1])


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
