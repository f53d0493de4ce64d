"""The structure term of MEF-SSIM, as a metric and as a training objective: the best structure of all sources."""

import math
from collections.abc import Sequence
from functools import reduce
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from .window import gaussian_filter

_TAPS, _SIGMA, _C2 = 11, 1.5, 0.03**2
_SCALES = 3
_FLAT = 1e-4  # is added to deviations, so that a flat window has a direction
_LARGEST_POWER = 10
SMALLEST_SIDE = _TAPS * 2 ** (_SCALES - 1)


def mef_structure(fused: Tensor, *sources: Tensor) -> Tensor:
    """Compare the structure of the fused image with the best structure that its sources have, two or more.

        S = (2 cov(F, D) + C2) / (var(F) + var(D) + C2),  D = max_k s_k (Σ u_k d_k) / |Σ u_k d_k|

    In each window, d_k = (I_k - mean) / s_k is the unit structure of a source and s_k its deviation. The desired
    structure D has the largest contrast of all, and the direction of their unit structures weighed by u_k, which is in
    proportion to s_k to the power tan(π R / 2), at most 10, with R = |Σ s_k d_k| / Σ s_k the consistency of the
    sources: where they agree, the strongest one decides. Gaussian windows have 11 taps and sigma 1.5 and are used where
    they fit; C2 = 0.03². The score is the mean over the windows of three scales, or as many as fit; each averages 2x2
    pixels of the one before.

    No copy of one source wins it, and neither does the maximum, which loses the structure of the darker source.

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1]; H and W are at least 11; from 44 on all scales fit.
        sources: The sources I_k, each of the shape and range of the fused images.

    Returns:
        (N,), in [-1, 1].

    References:
        Ma, Zeng and Wang, "Perceptual quality assessment for multi-exposure image fusion" (IEEE TIP 2015), whose
        patches are square.

    Example:
        >>> stripes = torch.arange(48.0).remainder(8).div(7).expand(1, 1, 48, 48)
        >>> flat = torch.full_like(stripes, 0.5)
        >>> [round(mef_structure(image, stripes, flat).item(), 1) for image in (stripes, flat)]
        [1.0, 0.0]
    """
    total = torch.zeros((), device=fused.device, dtype=fused.dtype)
    scales = 1 + sum(min(fused.shape[-2:]) >> scale >= _TAPS for scale in range(1, _SCALES))
    for scale in range(scales):
        if scale:
            fused, *sources = (F.avg_pool2d(image, 2) for image in (fused, *sources))  # type: ignore[assignment]
        total = total + _similarity(fused, sources).mean((-1, -2, -3))
    return total / scales


def _similarity(fused: Tensor, sources: Sequence[Tensor]) -> Tensor:
    mean, *means = map(_mean, (fused, *sources))
    with torch.no_grad():
        weights, contrast = _desired(sources, means)
    variance = (_mean(fused * fused) - mean * mean).clamp_min(0)
    covariances = [_mean(fused * source) - mean * own for source, own in zip(sources, means, strict=True)]
    covariance = sum(weight * own for weight, own in zip(weights, covariances, strict=True))
    return (2 * covariance + _C2) / (variance + contrast * contrast + _C2)


def _desired(sources: Sequence[Tensor], means: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Compute the weights of the sources in the desired structure, and its deviation."""
    pairs = list(combinations(range(len(sources)), 2))
    variances = [
        (_mean(source * source) - mean * mean).clamp_min(0) for source, mean in zip(sources, means, strict=True)
    ]
    covariances = [_mean(sources[i] * sources[j]) - means[i] * means[j] for i, j in pairs]
    deviations = [variance.sqrt() for variance in variances]

    def length(weights: Sequence[Tensor | float]) -> Tensor:
        """Compute the square of the length of the weighed sum of the sources' structures."""
        own = [weight**2 * variance for weight, variance in zip(weights, variances, strict=True)]
        shared = [2 * weights[i] * weights[j] * both for (i, j), both in zip(pairs, covariances, strict=True)]
        return reduce(torch.add, own + shared)

    consistency = length([1.0] * len(sources)).clamp_min(0).sqrt() / (reduce(torch.add, deviations) + _FLAT)
    power = torch.tan(math.pi / 2 * consistency.clamp(0, 1 - 1e-3)).clamp_max(_LARGEST_POWER)
    stronger = [(deviation + _FLAT) ** power for deviation in deviations]
    total = reduce(torch.add, stronger)
    weights = [own / total / (deviation + _FLAT) for own, deviation in zip(stronger, deviations, strict=True)]
    contrast = reduce(torch.maximum, deviations)
    scale = contrast / length(weights).clamp_min(1e-8).sqrt()
    return [scale * weight for weight in weights], contrast


def _mean(image: Tensor) -> Tensor:
    return gaussian_filter(image, _TAPS, _SIGMA, "valid")
