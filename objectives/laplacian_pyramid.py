"""Laplacian pyramids: an image as bands, each with the detail of one size, and a base."""

import torch
from torch import Tensor
from torch.nn import functional as F

BANDS = 4
"""Bands of a pyramid, beside its base."""
SMALLEST = 3
"""Smallest height and width in pixels that a band has; the kernel reflects two."""


def laplacian_pyramid(image: Tensor) -> tuple[list[Tensor], Tensor]:
    """Divide images into bands, from fine to coarse, and a base.

    Args:
        image: Images of shape (..., H, W).

    Returns:
        Up to four bands, the first of shape (..., H, W) and each of half the size of the one before; and the base.

    References:
        Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code" (IEEE Transactions on Communications, 1983).
    """
    bands: list[Tensor] = []
    while len(bands) < BANDS and min(image.shape[-2:]) >= SMALLEST:
        coarse = _blurred(image)[..., ::2, ::2]
        bands.append(image - _enlarged(coarse, image))
        image = coarse
    return bands, image


def from_pyramid(bands: list[Tensor], base: Tensor) -> Tensor:
    """Put the images together again that `laplacian_pyramid` divides."""
    for band in reversed(bands):
        base = _enlarged(base, band) + band
    return base


def _blurred(x: Tensor) -> Tensor:
    """Blur (..., H, W) with the binomial kernel of five taps and reflected borders."""
    taps = x.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padded = F.pad(x.reshape(-1, 1, *x.shape[-2:]), (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, torch.outer(taps, taps)[None, None]).view(x.shape)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    spread = torch.zeros_like(like)
    spread[..., ::2, ::2] = x
    return 4 * _blurred(spread)
