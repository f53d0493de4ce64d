"""SSIM and MS-SSIM, the structural similarity of the fused picture and its sources."""

import math

import torch
from torch import Tensor

from .pictures import MIDDLE, Pictures
from .windows import Window, window_moments

_WINDOW = Window(11, 1.5)
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST_SIDE = _WINDOW.taps
SMALLEST_SIDE_MULTISCALE = _WINDOW.taps * 2 ** (len(_SCALE_WEIGHTS) - 1)


def structural_similarity(pictures: Pictures) -> Tensor:
    """Compute SSIM, the mean of SSIM(A, F) and SSIM(B, F).

    The Gaussian window has 11 taps and sigma 1.5 and is used where it fits; the data range is 255. Many papers print
    the sum for both sources, which is twice this value.

    Args:
        pictures: Fused pictures and their sources, at least 11 pixels high and wide.

    Returns:
        (N,), -1 to 1.

    References:
        Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity"
        (IEEE TIP 2004).
    """
    similarity, _ = _similarities(pictures.rows, pictures.sources.shape[1])
    return similarity.mean(0)


def multiscale_structural_similarity(pictures: Pictures) -> Tensor:
    """Compute MS-SSIM, the mean of MS-SSIM(A, F) and MS-SSIM(B, F).

    Each of five scales is the mean of 2x2 pixels of the one before; an odd last row or column is dropped. The value is
    the product of the contrast-structure factors of the first four scales and SSIM of the last one, to the powers of
    the paper. Negative factors count 0.

    Args:
        pictures: Fused pictures and their sources, at least 176 pixels high and wide.

    Returns:
        (N,), 0 to 1.

    References:
        Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment" (Asilomar 2003).
    """
    rows, count = pictures.rows, pictures.sources.shape[1]
    product = torch.ones((), device=rows.device, dtype=torch.float64)
    for weight in _SCALE_WEIGHTS[:-1]:
        _, contrast = _similarities(rows, count)
        product = product * contrast.clamp(min=0).pow(weight)
        rows = _halve(rows)
    similarity, _ = _similarities(rows, count)
    return (product * similarity.clamp(min=0).pow(_SCALE_WEIGHTS[-1])).mean(0)


def _similarities(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Compute mean SSIM and the mean of its contrast-structure factor, (2, N) each, from (H, 2K + N, W)."""
    similarity = contrast = torch.zeros((), device=rows.device, dtype=torch.float64)
    for moments in window_moments(rows, count, _WINDOW):
        # The moments need double precision; for the rest, single precision suffices.
        fused_mean, source_mean, fused_variance, source_variance, covariance = (x.float() for x in moments)
        fused_mean, source_mean = fused_mean.add_(MIDDLE), source_mean.add_(MIDDLE)
        structure = covariance.add_(_C2 / 2).div_(source_variance + fused_variance.add_(_C2))  # half of it
        luminance = (fused_mean * source_mean).add_(_C1 / 2)
        luminance.div_(source_mean.square_() + fused_mean.square_().add_(_C1))  # half of it
        contrast = contrast + 2 * structure.sum(-1).sum(0, dtype=torch.float64)
        similarity = similarity + 4 * luminance.mul_(structure).sum(-1).sum(0, dtype=torch.float64)
    places = math.prod(size - _WINDOW.taps + 1 for size in (rows.shape[0], rows.shape[2]))
    return similarity / places, contrast / places


def _halve(rows: Tensor) -> Tensor:
    """Average 2x2 pixels, (H, C, W) to (H // 2, C, W // 2)."""
    height, width = rows.shape[0] // 2 * 2, rows.shape[2] // 2 * 2
    pairs = rows[:height:2] + rows[1:height:2]
    return (pairs[..., :width:2] + pairs[..., 1:width:2]).div_(4)
