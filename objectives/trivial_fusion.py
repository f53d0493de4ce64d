"""Fusion without a network: what networks are compared with in validation, in benchmarks and in tables.

Each maps two sources (N, 1, H, W) in [0, 1] to the fused image.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

BANDS = 4
"""Bands of the Laplacian pyramid, beside its base."""
SMALLEST = 3
"""Smallest height and width in pixels that a band has; the kernel reflects two."""


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
    level = torch.stack((first, second))  # (2, N, 1, H, W)
    bands: list[Tensor] = []
    while len(bands) < BANDS and min(level.shape[-2:]) >= SMALLEST:
        coarse = _blurred(level)[..., ::2, ::2]
        bands.append(level - _enlarged(coarse, level))
        level = coarse
    fused = level.mean(0)
    for a, b in reversed(bands):
        fused = _enlarged(fused, a) + torch.where(a.abs() >= b.abs(), a, b)
    return fused


TRIVIAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "average": average,
    "maximum": torch.maximum,
    "laplacian": laplacian,
}
"""The methods by their names."""


def _blurred(x: Tensor) -> Tensor:
    """Blur (..., H, W) with the binomial kernel of five taps and reflected borders."""
    taps = x.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padded = F.pad(x.reshape(-1, 1, *x.shape[-2:]), (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, torch.outer(taps, taps)[None, None]).view(x.shape)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    spread = torch.zeros_like(like)
    spread[..., ::2, ::2] = x
    return 4 * _blurred(spread)
