"""Gaussian windows as band matrices, so that filtering an image takes two matrix products."""

from functools import lru_cache

import torch
from torch import Tensor


def gaussian_filter(image: Tensor, taps: int, sigma: float, border: str) -> Tensor:
    """Average an image under a Gaussian window.

    On a CPU, two products with band matrices are several times as fast as convolutions with one channel.

    Args:
        image: Image or stack of images, (..., H, W).
        taps: Width of the window in pixels, odd.
        sigma: Standard deviation of the window in pixels.
        border: Treatment of the border: "reflect" keeps the size, "valid" keeps the places where the window fits.

    Returns:
        (..., H, W), or (..., H - taps + 1, W - taps + 1) for "valid".

    Raises:
        ValueError: If the image is smaller than the window allows.
    """
    rows, columns = (
        _window(size, taps, sigma, border, image.dtype, image.device) for size in (image.shape[-2], image.shape[-1])
    )
    return rows @ image @ columns.T


@lru_cache(maxsize=128)
def _window(size: int, taps: int, sigma: float, border: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Make the matrix that filters a line of pixels: (size, size), or (size - taps + 1, size) for "valid"."""
    radius = taps // 2
    smallest = taps if border == "valid" else radius + 1
    if size < smallest:
        raise ValueError(f"a window of {taps} pixels needs images of at least {smallest} pixels, not {size}")
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-offsets.double().square() / (2 * sigma**2))
    centres = torch.arange(radius, size - radius) if border == "valid" else torch.arange(size)
    places = (centres[:, None] + offsets).abs()  # (rows, taps); reflected at 0
    places = size - 1 - (size - 1 - places).abs()  # and at the far end
    # A cached tensor that was made in inference mode could never take part in a backward pass.
    with torch.inference_mode(False):
        window = torch.zeros(len(centres), size, dtype=torch.float64)
        window.scatter_add_(1, places.clone(), (weights / weights.sum()).repeat(len(centres), 1))
        return window.to(device, dtype)
