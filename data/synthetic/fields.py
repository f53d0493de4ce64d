"""Smooth random fields, blurs and soft steps, for everything in a picture that has no straight edges."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .canvas import Floats


def spline_weights(places: NDArray[np.floating], cells: int) -> Floats:
    """Compute the weights of the cubic B-splines on a regular grid.

    Args:
        places: Places (size,) in [0, 1], from one end of the grid to the other.
        cells: Number of grid cells between the ends.
    """
    distance = np.abs(places[:, None] * cells + 1 - np.arange(cells + 3))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.asarray(np.where(distance < 1, near, far), np.float32)


@lru_cache(maxsize=64)
def _pixel_weights(size: int, cells: int) -> Floats:
    return spline_weights((np.arange(size) + 0.5) / size, cells)


def spread(nodes: NDArray[np.floating], height: int, width: int) -> Floats:
    """Interpolate nodes (..., rows + 3, columns + 3) of a coarse grid to an image (..., height, width).

    The result is twice differentiable.
    """
    down, across = (_pixel_weights(size, nodes.shape[axis] - 3) for size, axis in ((height, -2), (width, -1)))
    return np.asarray(down @ nodes.astype(np.float32) @ across.T, np.float32)


def field(rng: np.random.Generator, shape: tuple[int, ...], rows: int, columns: int) -> Floats:
    """Draw a smooth Gaussian field (H, W) with a standard deviation of about one.

    Args:
        rows: Grid cells from top to bottom, at least 1; a wave is about two of them long.
    """
    height, width = shape
    # The squared weights of a cubic B-spline sum to 0.48 on average, along each axis.
    return spread(rng.standard_normal((rows + 3, columns + 3)) / 0.48, height, width)


def _gaussian(size: int, sigma: float) -> Floats:
    places = np.arange(size)
    weights = np.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def gaussian_blur(image: Floats, sigma: float) -> Floats:
    """Blur images (..., H, W) by a Gaussian, cut and normalised at the borders; `sigma` is in pixels."""
    height, width = image.shape[-2:]
    return np.asarray(_gaussian(height, sigma) @ image @ _gaussian(width, sigma).T, np.float32)


def disc_blur(image: Floats, radius: float) -> Floats:
    """Blur mirrored images (..., H, W) by a disc, as a lens does out of focus; `radius` is in pixels."""
    height, width = image.shape[-2:]
    if radius <= 0.5:
        return image
    margin = min(int(np.ceil(radius)) + 1, height - 1, width - 1)
    places = np.arange(-margin, margin + 1, dtype=np.float32)
    disc = np.clip(np.float32(radius + 0.5) - np.hypot(places[:, None], places), 0, 1)
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(margin, margin)] * 2, mode="reflect")
    size = [-(-side // 16) * 16 for side in padded.shape[-2:]]  # transforms are quick for multiples of 16
    spectrum = np.fft.rfft2(padded, size) * np.fft.rfft2(disc / disc.sum(), size)
    # Of the cyclic convolution the part without wrapping is kept, in which the disc lies wholly inside.
    rows, columns = (slice(2 * margin, 2 * margin + side) for side in (height, width))
    return np.asarray(np.fft.irfft2(spectrum, size)[..., rows, columns], np.float32)


def step(values: Floats, low: float, high: float) -> Floats:
    """Compute the cubic step 3 t^2 - 2 t^3 from 0 at `low` to 1 at `high`; it falls if `high` is below `low`."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def quantise(signal: Floats) -> NDArray[np.uint8]:
    """Clip to [0, 1] and round to 8 bits."""
    return np.rint(255 * np.clip(signal, 0, 1)).astype(np.uint8)
