"""FMI, the mutual information of features of the fused picture and its sources."""

import math

import torch
from torch import Tensor

from .bands import row_bands
from .pictures import Pictures

_SIDE = 3  # width and height of a window in pixels
_TINY = 1e-30
SMALLEST_SIDE = _SIDE


def feature_mutual_information(pictures: Pictures) -> Tensor:
    """Compute FMI, the feature mutual information of local windows, as the mean over both sources.

        FMI = mean over windows of 2 I(A, F) / (H(A) + H(F))

    The feature is the horizontal central difference, as in the authors' code. In each 3x3 window, the feature minus its
    minimum is read as a distribution over nine pixels. The joint distribution of two windows is interpolated between
    independence and the Fréchet bound according to their correlation. A window with equal features counts 1.

    Args:
        pictures: Fused pictures and their sources, at least 3 pixels high and wide.

    Returns:
        (N,), 0 to 1; NaN if the fused picture and a source are flat.

    References:
        Haghighat, Aghagolzadeh and Seyedarabi, "A non-reference image fusion metric based on mutual information of
        image features" (Computers and Electrical Engineering 2011).
        Haghighat and Razian, "Fast-FMI: non-reference image fusion metric" (AICT 2014), for the windows.
    """
    height, width = (size - _SIDE + 1 for size in pictures.fused.shape[-2:])
    count = pictures.sources.shape[1]
    every = torch.cat((pictures.sources.flatten(0, 1), pictures.fused[0]))
    total = torch.zeros((), device=every.device, dtype=torch.float64)
    for band in row_bands(height, 2 * _SIDE**2 * pictures.fused.shape[1] * width, every.device):
        image = every[:, band.start : band.stop + _SIDE - 1].float()
        (feature,) = torch.gradient(image, dim=-1)
        windows = _windows(feature)  # (9, 2K + N, h, w)
        sources, fused = windows[:, : 2 * count].unflatten(1, (2, count)), windows[:, 2 * count :].unsqueeze(1)
        total = total + _shared(fused, sources).sum((-2, -1), dtype=torch.float64)  # (2, N)
    total = total.masked_fill(pictures.flat_fused & pictures.flat_sources, math.nan)
    return total.mean(0) / (height * width)


def _windows(feature: Tensor) -> Tensor:
    """Stack the nine pixels of each window, column by column as in the authors' code; (..., H, W) to (9, ..., h, w)."""
    height, width = (size - _SIDE + 1 for size in feature.shape[-2:])
    places = [(row, column) for column in range(_SIDE) for row in range(_SIDE)]
    return torch.stack([feature[..., row : row + height, column : column + width] for row, column in places])


def _shared(fused: Tensor, sources: Tensor) -> Tensor:
    """Compute normalised mutual information of windows (9, 1, N, h, w) and (9, 2, K, h, w), (2, N, h, w)."""
    equal = (fused == sources).all(0)
    fused, sources = _distribution(fused), _distribution(sources)
    entropies = _entropy(fused) + _entropy(sources)
    spread = _variance_over_places(fused) * _variance_over_places(sources)
    norms = ((fused - 1 / 9).square().sum(0) * (sources - 1 / 9).square().sum(0)).clamp(min=_TINY)
    correlation = ((fused - 1 / 9) * (sources - 1 / 9)).sum(0) / norms.sqrt()
    # The lower Fréchet bound is the upper one with the pixels of one window in reverse order.
    sources = torch.where(correlation < 0, sources.flip(0), sources.expand(-1, *correlation.shape))
    fused_below, sources_below = fused.cumsum(0), sources.cumsum(0)
    bound = sum(torch.minimum(line, sources_below).sum(0) for line in fused_below)
    largest_covariance = bound - fused_below.sum(0) * sources_below.sum(0)
    # The correlation relative to the largest one that the two distributions allow.
    dependence = correlation.abs() * spread.clamp(min=0).sqrt() / largest_covariance.clamp(min=1e-6)
    joint_entropy = torch.zeros_like(dependence)
    before = torch.zeros_like(sources_below)
    for below, probability in zip(fused_below, fused, strict=True):
        now = torch.minimum(below, sources_below)
        row = now - before  # (9, 2, N, h, w)
        row[1:] -= now[:-1] - before[:-1]
        joint = row.sub_(product := sources * probability).mul_(dependence).add_(product)
        joint_entropy += _entropy(joint)
        before = now
    shared = 2 * (entropies - joint_entropy) / entropies.clamp(min=1e-6)
    return shared.masked_fill_(equal, 1.0)


def _distribution(window: Tensor) -> Tensor:
    """Subtract the minimum of nine values and scale them to the sum 1; uniform where all are equal."""
    above = window - window.amin(0)
    total = above.sum(0)
    return torch.where(total > 0, above / total.clamp(min=_TINY), 1 / 9)


def _variance_over_places(probabilities: Tensor) -> Tensor:
    """Compute the variance of the pixel's number, 1 to 9, under the distribution of a window."""
    places = torch.arange(-4.0, 5.0, device=probabilities.device).view(-1, *[1] * (probabilities.ndim - 1))
    return (places.square() * probabilities).sum(0) - (places * probabilities).sum(0).square()


def _entropy(probabilities: Tensor) -> Tensor:
    """Compute the entropy over the first dimension in bits, with |p| for estimates below 0 as in the authors' code."""
    return -(probabilities * probabilities.abs().clamp_(min=_TINY).log2_()).sum(0)
