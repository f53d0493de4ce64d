"""Means, variances and covariances under a Gaussian window, at every place where the window fits."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .bands import row_bands

# Outputs of one matrix product, chosen by measurement: small bands multiply fewer zeros, large ones keep a CPU busy.
_DOWN, _ACROSS = 16, 24


class Window(NamedTuple):
    """A separable Gaussian window: its number of taps and its standard deviation in pixels."""

    taps: int
    sigma: float


class Moments(NamedTuple):
    """Moments of a band of h rows under a window, float64; the tensors may be changed in place."""

    fused_mean: Tensor  # (h, 1, N, W)
    source_mean: Tensor  # (h, 2, K, W)
    fused_variance: Tensor  # (h, 1, N, W)
    source_variance: Tensor  # (h, 2, K, W)
    covariance: Tensor  # (h, 2, N, W)


def window_moments(rows: Tensor, sources: int, window: Window) -> Iterator[Moments]:
    """Compute moments of fused pictures and their sources, band by band.

    Args:
        rows: Pictures, (H, 2K + N, W) float64, with the fused pictures last.

    Yields:
        The moments of consecutive bands of rows, W - taps + 1 columns wide.
    """
    height, pictures, width = rows.shape
    fused = pictures - 2 * sources
    parts = (pictures, pictures, 2 * fused)
    for band in row_bands(height - window.taps + 1, sum(parts) * width, rows.device):
        x = rows[band.start : band.stop + window.taps - 1]
        # The pictures, their squares and their products side by side, so that all are filtered at once.
        maps = x.new_empty(len(x), sum(parts), width)
        first, second, product = maps.split(parts, 1)
        first.copy_(x)
        torch.mul(x, x, out=second)
        split = x[:, : 2 * sources].unflatten(1, (2, sources)), x[:, 2 * sources :].unsqueeze(1)
        torch.mul(*split, out=product.unflatten(1, (2, fused)))
        mean, variance, covariance = smooth(maps, window).split(parts, 1)
        variance.addcmul_(mean, mean, value=-1)
        source_mean, source_variance = (m[:, : 2 * sources].unflatten(1, (2, sources)) for m in (mean, variance))
        fused_mean, fused_variance = (m[:, 2 * sources :].unsqueeze(1) for m in (mean, variance))
        covariance = covariance.unflatten(1, (2, fused)).addcmul_(source_mean, fused_mean, value=-1)
        yield Moments(fused_mean, source_mean, fused_variance, source_variance, covariance)


def smooth(rows: Tensor, window: Window, step: int = 1) -> Tensor:
    """Filter with a window, at the places where it fits.

    The filter is a product with small band matrices, first down and then across.

    Args:
        rows: Pictures, (H, C, W), contiguous in memory.
        step: Distance of neighbouring results in pixels.

    Returns:
        (floor((H - taps) / step) + 1, C, floor((W - taps) / step) + 1).
    """
    height, channels, width = ((rows.shape[0] - window.taps) // step + 1, rows.shape[1], rows.shape[2])
    flat = rows.view(rows.shape[0], channels * width)
    down = rows.new_empty(height, channels * width)
    matrix = _band_matrix(window, min(_DOWN, height), step, rows.dtype, rows.device)
    for start in _starts(height, len(matrix)):
        place = flat[start * step : start * step + matrix.shape[1]]
        torch.mm(matrix, place, out=down[start : start + len(matrix)])
    flat = down.view(height * channels, width)
    width = (width - window.taps) // step + 1
    across = rows.new_empty(height * channels, width)
    matrix = _band_matrix(window, min(_ACROSS, width), step, rows.dtype, rows.device)
    for start in _starts(width, len(matrix)):
        place = flat[:, start * step : start * step + matrix.shape[1]]
        torch.mm(place, matrix.T, out=across[:, start : start + len(matrix)])
    return across.view(height, channels, width)


def _starts(size: int, block: int) -> list[int]:
    """List the starts of blocks that cover a line; the last block may overlap the one before."""
    return [*range(0, size - block, block), size - block]


@lru_cache(maxsize=64)
def _band_matrix(window: Window, outputs: int, step: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Make the (outputs, (outputs - 1) * step + taps) matrix that moves a window along a line."""
    offsets = torch.arange(window.taps, dtype=torch.float64) - (window.taps - 1) / 2
    taps = torch.exp(-offsets.square() / (2 * window.sigma**2))
    matrix = torch.zeros(outputs, (outputs - 1) * step + window.taps, dtype=torch.float64)
    for row, line in enumerate(matrix):
        line[row * step : row * step + window.taps] = taps / taps.sum()
    return matrix.to(device, dtype)
