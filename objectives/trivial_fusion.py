"""Fusion without a network: what networks are compared with in validation, in benchmarks and in tables.

Each maps two sources (N, 1, H, W) in [0, 1] to the fused image.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .laplacian_pyramid import from_pyramid, laplacian_pyramid


def average(first: Tensor, second: Tensor) -> Tensor:
    """Average both sources.

    Example:
        >>> average(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item()
        0.5
    """
    return (first + second) / 2


def laplacian(first: Tensor, second: Tensor) -> Tensor:
    """Take the larger coefficient of two Laplacian pyramids at each pixel, and average their coarsest levels.

    Example:
        >>> image = torch.rand(1, 1, 20, 30)
        >>> torch.allclose(laplacian(image, image), image, atol=1e-6)
        True
    """
    bands, base = laplacian_pyramid(torch.stack((first, second)))  # (2, N, 1, h, w) each
    larger = [torch.where(a.abs() >= b.abs(), a, b) for a, b in bands]
    return from_pyramid(larger, base.mean(0))


TRIVIAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "average": average,
    "maximum": torch.maximum,
    "laplacian": laplacian,
}
"""The methods by their names."""
