"""Colour of fused images: networks fuse luma, and the fused luma takes the chroma of the sources."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from .images import Pixels

# ITU-R BT.601, as in `luma`.
LUMA = _RED, _GREEN, _BLUE = 0.299, 0.587, 0.114


def is_colour(pixels: Pixels) -> bool:
    """Check whether an image (H, W) or (H, W, 3) has colour: three channels that are not all equal.

    Example:
        >>> is_colour(np.zeros((4, 4, 3), np.uint8)), is_colour(np.eye(3, dtype=np.uint8)[None])
        (False, True)
    """
    if pixels.ndim == 2:
        return False
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return not (np.array_equal(red, green) and np.array_equal(green, blue))


def chroma_source(colour: str, first: Pixels, second: Pixels, *further: Pixels) -> str:
    """Choose the source of a fused image's chroma; false colours of another source never reach the fused image.

    Args:
        colour: The source that has colour, "first", "second" or "both"; see `Genotype.colour_source`. "Both" are all
            sources of a stack.

    Returns:
        `colour`, or "grey" if this source, or all of "both", are grey.

    Example:
        >>> grey, red = np.zeros((2, 2), np.uint8), np.full((2, 2, 3), (255, 0, 0), np.uint8)
        >>> chroma_source("second", grey, red), chroma_source("second", red, grey), chroma_source("both", grey, grey)
        ('second', 'grey', 'grey')
    """
    sources = {"first": [first], "second": [second], "both": [first, second, *further]}[colour]
    return colour if any(map(is_colour, sources)) else "grey"


def luma_of(pixels: Pixels) -> Tensor:
    """Compute luma Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) in [0, 1] without rounding.

    Args:
        pixels: Pixels (H, W) or (H, W, 3), uint8, uint16 or floating-point in [0, 1].

    Returns:
        (H, W) float32 in [0, 1].

    Example:
        >>> luma_of(np.array([[[255, 0, 0], [255, 255, 255]]], np.uint8))
        tensor([[0.2990, 1.0000]])
    """
    if pixels.dtype == np.uint8:
        # A copy of what torch does not take: views in another order, like colours from OpenCV, and read-only arrays.
        return _luma(torch.from_numpy(np.require(pixels, requirements=["C", "W"])), 1 / 255)
    return _luma(_unit(pixels))


def colour_like(fused: Tensor, first: Pixels, second: Pixels, chroma: str, *, further: Sequence[Pixels] = ()) -> Tensor:
    """Give a fused luma the chroma Cb, Cr of its sources.

    A new luma Y' with the same Cb and Cr is RGB + (Y' - Y). The chroma of several coloured sources is blended with the
    weights |Cb - 1/2| and |Cr - 1/2|, as in DeepFuse (arXiv 1712.07384).

    Args:
        fused: Fused luma Y', (H, W) float32 in [0, 1].
        first: Pixels (H, W) or (H, W, 3) of the first source, uint8, uint16 or floating-point in [0, 1].
        second: Pixels of the second source in any of these forms.
        chroma: The source of the chroma, "first", "second", "both" or "grey"; see `chroma_source`.
        further: Pixels of the third and further sources of a stack.

    Returns:
        (H, W, 3) float32, clipped to [0, 1]; `fused` itself for "grey".

    Example:
        >>> reddish = np.full((1, 1, 3), (90, 60, 60), np.uint8)
        >>> colour_like(torch.full((1, 1), 0.5), np.zeros((1, 1), np.uint8), reddish, "second")
        tensor([[[0.5825, 0.4648, 0.4648]]])
    """
    if chroma == "grey":
        return fused
    if chroma == "both":
        return _blended(fused, first, second, *further).clamp_(0, 1)
    image = _unit(first if chroma == "first" else second)
    if image.ndim == 2:
        return fused
    return image.add_((fused - _luma(image)).unsqueeze(-1)).clamp_(0, 1)


def colour_shift(first: Pixels, second: Pixels, chroma: str) -> Tensor:
    """Compute what a fused luma needs for the chroma of its sources: `colour_like` adds it, and clips.

    Args:
        first: Pixels (H, W) or (H, W, 3) of the first source, uint8, uint16 or floating-point in [0, 1].
        second: Pixels of the second source in any of these forms.
        chroma: The source of the chroma, "first", "second", "both" or "grey"; see `chroma_source`.

    Returns:
        R - Y, G - Y and B - Y in [-1, 1], (H, W, 3) float32.

    Example:
        >>> reddish = np.full((1, 1, 3), (90, 60, 60), np.uint8)
        >>> colour_shift(np.zeros((1, 1), np.uint8), reddish, "second")
        tensor([[[ 0.0825, -0.0352, -0.0352]]])
    """
    if chroma == "both":
        return _blended(torch.zeros(first.shape[:2]), first, second)
    image = torch.zeros(first.shape[:2]) if chroma == "grey" else _unit(first if chroma == "first" else second)
    if image.ndim == 2:
        return torch.zeros(*image.shape, 3)
    return image.sub_(_luma(image).unsqueeze(-1))


def coloured_pixels(
    fused: Tensor, first: Pixels, second: Pixels, chroma: str, dtype: DTypeLike, *, further: Sequence[Pixels] = ()
) -> Pixels:
    """Give a fused luma the chroma of its sources and round it: `to_pixels` of `colour_like`, and faster.

    Of 8 bits, RGB + (Y' - Y) is rounded as RGB plus a rounded difference, so that only one plane is computed in floats.

    Args:
        fused: Fused luma Y', (H, W) float32 in [0, 1].
        first: Pixels (H, W) or (H, W, 3) of the first source, uint8, uint16 or floating-point in [0, 1].
        second: Pixels of the second source in any of these forms.
        chroma: The source of the chroma, "first", "second", "both" or "grey"; see `chroma_source`.
        dtype: The type to convert to, uint8, uint16 or floating-point.
        further: Pixels of the third and further sources of a stack.

    Example:
        >>> reddish = np.full((1, 1, 3), (90, 60, 60), np.uint8)
        >>> coloured_pixels(torch.full((1, 1), 0.5), np.zeros((1, 1), np.uint8), reddish, "second", np.uint8)
        array([[[149, 119, 119]]], dtype=uint8)
    """
    source = {"first": first, "second": second}.get(chroma)
    if source is None or source.ndim == 2 or not (source.dtype == dtype == np.uint8):
        return to_pixels(colour_like(fused, first, second, chroma, further=further), dtype)
    shift = (fused - luma_of(source)).mul_(255).round_().to(torch.int16)
    shift = shift.flatten().repeat_interleave(3).view(source.shape)  # faster than broadcasting
    pixels: Pixels = shift.add_(torch.from_numpy(source.astype(np.int16))).clamp_(0, 255).to(torch.uint8).numpy()
    return pixels


def to_pixels(image: Tensor, dtype: DTypeLike) -> Pixels:
    """Clip to [0, 1], scale to the full range of an integer type and round to the nearest integer.

    Args:
        image: Values of any shape, float32.
        dtype: The type to convert to, uint8 or uint16; a floating-point type is only clipped to.

    Returns:
        The same shape in that dtype.

    Example:
        >>> to_pixels(torch.tensor([-0.1, 0.5, 2.0]), np.uint8)
        array([  0, 128, 255], dtype=uint8)
    """
    depth = np.dtype(dtype)
    if depth.kind == "f":
        return image.detach().clamp(0, 1).numpy().astype(depth)
    full = int(np.iinfo(depth).max)
    pixels: Pixels = image.detach().mul(full).round_().clamp_(0, full).numpy().astype(depth)
    return pixels


def _unit(pixels: Pixels) -> Tensor:
    """Scale pixels to [0, 1]: float32 of the same shape in contiguous memory of its own."""
    unit = torch.from_numpy(pixels.astype(np.float32, order="C"))
    return unit if pixels.dtype.kind == "f" else unit.div_(int(np.iinfo(pixels.dtype).max))


def _luma(image: Tensor, scale: float = 1.0) -> Tensor:
    """Compute the luma of (H, W) or (H, W, 3), times a scale."""
    if image.ndim == 2:
        return image if scale == 1 else image * scale
    red, green, blue = image.unbind(-1)
    return (red * (scale * _RED)).add_(green, alpha=scale * _GREEN).add_(blue, alpha=scale * _BLUE)


def _blended(fused: Tensor, *sources: Pixels) -> Tensor:
    """Give a fused luma (H, W) the blended chroma of its sources: (H, W, 3), not clipped."""
    planes = []
    # Cr - 1/2 and Cb - 1/2 are R - Y and B - Y up to constants, which cancel between the weights.
    for plane, *others in zip(*map(_differences, sources), strict=True):
        total = plane.abs()
        plane.mul_(total)
        for other in others:
            weight = other.abs()
            plane.addcmul_(other, weight)
            total.add_(weight)
        planes.append(plane.div_(total.clamp_(min=torch.finfo(torch.float32).tiny)))
    red, blue = planes
    image = torch.empty(*fused.shape, 3)
    torch.add(fused, red, out=image[..., 0])
    torch.add(fused, blue, out=image[..., 2])
    green = red.mul_(-_RED / _GREEN).sub_(blue, alpha=_BLUE / _GREEN)  # the luma of the three differences is zero
    torch.add(fused, green, out=image[..., 1])
    return image


def _differences(pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Compute R - Y and B - Y, (H, W) each, of pixels (H, W) or (H, W, 3)."""
    if pixels.ndim == 2:
        return torch.zeros(pixels.shape), torch.zeros(pixels.shape)
    planes = _unit(pixels.transpose(2, 0, 1))  # channels apart: several passes over them follow
    luma = planes[0].mul(_RED).add_(planes[1], alpha=_GREEN).add_(planes[2], alpha=_BLUE)
    return planes[0].sub_(luma), planes[2].sub_(luma)
