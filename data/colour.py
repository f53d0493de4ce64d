"""Colour of a fused image: the network fuses luma, and the chroma of the sources is put back around it."""

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from .images import Pixels

# ITU-R BT.601, as in `luma`.
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114


def is_colour(pixels: Pixels) -> bool:
    """Tell whether an image has colour: three channels that are not all equal.

    Args:
        pixels: (H, W) or (H, W, 3), uint8 or uint16.

    Returns:
        False for grey images, also for those stored with three channels.
    """
    if pixels.ndim == 2:
        return False
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return not (np.array_equal(red, green) and np.array_equal(green, blue))


def chroma_source(colour: str, first: Pixels, second: Pixels) -> str:
    """Choose where the chroma of a fused image comes from.

    Args:
        colour: Which source carries the colour: "first", "second" or "both", as `Genotype.colour_source` says.
        first: (H, W) or (H, W, 3).
        second: (H, W) or (H, W, 3).

    Returns:
        `colour`, but the other source where the one that carries the colour is grey; "grey" where both are.
    """
    coloured = {"first": is_colour(first), "second": is_colour(second)}
    if not any(coloured.values()):
        return "grey"
    if colour == "both" or coloured[colour]:
        return colour
    return "second" if colour == "first" else "first"


def luma_of(pixels: Pixels) -> Tensor:
    """Luma Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) in [0, 1], not rounded to the integers of the depth.

    Args:
        pixels: (H, W) or (H, W, 3), uint8, uint16 or floating-point in [0, 1].

    Returns:
        (H, W) float32 in [0, 1].
    """
    return _luma(_unit(pixels))


def colour_like(fused: Tensor, first: Pixels, second: Pixels, chroma: str) -> Tensor:
    """Give a fused luma the chroma Cb, Cr of its sources.

    Keeping Cb and Cr under a new luma Y' is RGB + (Y' - Y). Of two coloured sources the chroma are blended with the
    weights |Cb - 1/2| and |Cr - 1/2|, as in DeepFuse (arXiv 1712.07384).

    Args:
        fused: Y', (H, W) float32 in [0, 1].
        first: (H, W) or (H, W, 3), uint8, uint16 or floating-point in [0, 1].
        second: As `first`.
        chroma: "first", "second", "both" or "grey"; see `chroma_source`.

    Returns:
        (H, W, 3) float32, clipped to [0, 1]; `fused` itself, (H, W), for "grey".
    """
    if chroma == "grey":
        return fused
    if chroma == "both":
        return _blended(fused, first, second).clamp_(0, 1)
    image = _unit(first if chroma == "first" else second)
    if image.ndim == 2:
        return fused
    return image.add_((fused - _luma(image)).unsqueeze(-1)).clamp_(0, 1)


def to_pixels(image: Tensor, dtype: DTypeLike) -> Pixels:
    """Clip to [0, 1], scale to the full range of a depth and round to the nearest integer.

    Args:
        image: Any shape, float32.
        dtype: uint8 or uint16; or a floating-point type, for which values are clipped only.

    Returns:
        The same shape in that dtype.
    """
    depth = np.dtype(dtype)
    if depth.kind == "f":
        return image.detach().clamp(0, 1).numpy().astype(depth)
    full = int(np.iinfo(depth).max)
    pixels: Pixels = image.detach().mul(full).round_().clamp_(0, full).numpy().astype(depth)
    return pixels


def _unit(pixels: Pixels) -> Tensor:
    """The pixels in [0, 1], float32 of the same shape, in contiguous memory of their own."""
    unit = torch.from_numpy(pixels.astype(np.float32, order="C"))
    return unit if pixels.dtype.kind == "f" else unit.div_(int(np.iinfo(pixels.dtype).max))


def _luma(image: Tensor) -> Tensor:
    """Luma of (H, W) or (H, W, 3)."""
    if image.ndim == 2:
        return image
    return image[..., 0].mul(_RED).add_(image[..., 1], alpha=_GREEN).add_(image[..., 2], alpha=_BLUE)


def _blended(fused: Tensor, first: Pixels, second: Pixels) -> Tensor:
    """The fused luma (H, W) under the blended chroma of two sources: (H, W, 3), not clipped."""
    planes = []
    # Cr - 1/2 and Cb - 1/2 are R - Y and B - Y up to constants, which cancel between the weights.
    for one, other in zip(_differences(first), _differences(second), strict=True):
        weight, other_weight = one.abs(), other.abs()
        one.mul_(weight).addcmul_(other, other_weight)
        planes.append(one.div_(weight.add_(other_weight).clamp_(min=torch.finfo(torch.float32).tiny)))
    red, blue = planes
    image = torch.empty(*fused.shape, 3)
    torch.add(fused, red, out=image[..., 0])
    torch.add(fused, blue, out=image[..., 2])
    green = red.mul_(-_RED / _GREEN).sub_(blue, alpha=_BLUE / _GREEN)  # the luma of the three differences is zero
    torch.add(fused, green, out=image[..., 1])
    return image


def _differences(pixels: Pixels) -> tuple[Tensor, Tensor]:
    """R - Y and B - Y of (H, W) or (H, W, 3) pixels, (H, W) each."""
    if pixels.ndim == 2:
        return torch.zeros(pixels.shape), torch.zeros(pixels.shape)
    planes = _unit(pixels.transpose(2, 0, 1))  # channels apart: several passes over them follow
    luma = planes[0].mul(_RED).add_(planes[1], alpha=_GREEN).add_(planes[2], alpha=_BLUE)
    return planes[0].sub_(luma), planes[2].sub_(luma)
