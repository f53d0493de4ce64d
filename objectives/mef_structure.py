"""The structure term of MEF-SSIM, as a metric and as a training objective: the best structure of both sources."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .window import gaussian_filter

_TAPS, _SIGMA, _C2 = 11, 1.5, 0.03**2
_SCALES = 3
_FLAT = 1e-4  # is added to deviations, so that a flat window has a direction
_LARGEST_POWER = 10
SMALLEST_SIDE = _TAPS * 2 ** (_SCALES - 1)


def mef_structure(fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Compare the structure of the fused image with the best structure that both sources have.

        S = (2 cov(F, D) + C2) / (var(F) + var(D) + C2),  D = max(s_1, s_2) (u_1 d_1 + u_2 d_2) / |u_1 d_1 + u_2 d_2|

    In each window, d_k = (I_k - mean) / s_k is the unit structure of a source and s_k its deviation. The desired
    structure D has the larger contrast of the two, and the direction of their unit structures weighed by u_k, which is
    in proportion to s_k to the power tan(π R / 2), at most 10, with R the consistency of the two: where they agree, the
    stronger one decides. Gaussian windows have 11 taps and sigma 1.5 and are used where they fit; C2 = 0.03². The score
    is the mean over the windows of three scales, or as many as fit; each averages 2x2 pixels of the one before.

    No copy of one source wins it, and neither does the maximum, which loses the structure of the darker source.

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1], like both sources I_k; H and W are at least 11; from 44 on all
            scales fit.

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
            fused, first, second = (F.avg_pool2d(image, 2) for image in (fused, first, second))
        total = total + _similarity(fused, first, second).mean((-1, -2, -3))
    return total / scales


def _similarity(fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
    mean_1, mean_2, mean_f = map(_mean, (first, second, fused))
    with torch.no_grad():
        weight_1, weight_2, contrast = _desired(first, second, mean_1, mean_2)
    variance = (_mean(fused * fused) - mean_f * mean_f).clamp_min(0)
    covariance_1 = _mean(fused * first) - mean_f * mean_1
    covariance_2 = _mean(fused * second) - mean_f * mean_2
    covariance = weight_1 * covariance_1 + weight_2 * covariance_2
    return (2 * covariance + _C2) / (variance + contrast * contrast + _C2)


def _desired(first: Tensor, second: Tensor, mean_1: Tensor, mean_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the weights of both sources in the desired structure, and its deviation."""
    variance_1 = (_mean(first * first) - mean_1 * mean_1).clamp_min(0)
    variance_2 = (_mean(second * second) - mean_2 * mean_2).clamp_min(0)
    covariance = _mean(first * second) - mean_1 * mean_2
    deviation_1, deviation_2 = variance_1.sqrt(), variance_2.sqrt()
    consistency = (variance_1 + variance_2 + 2 * covariance).clamp_min(0).sqrt() / (deviation_1 + deviation_2 + _FLAT)
    power = torch.tan(math.pi / 2 * consistency.clamp(0, 1 - 1e-3)).clamp_max(_LARGEST_POWER)
    stronger_1, stronger_2 = (deviation_1 + _FLAT) ** power, (deviation_2 + _FLAT) ** power
    total = stronger_1 + stronger_2
    weight_1 = stronger_1 / total / (deviation_1 + _FLAT)
    weight_2 = stronger_2 / total / (deviation_2 + _FLAT)
    length = weight_1**2 * variance_1 + weight_2**2 * variance_2 + 2 * weight_1 * weight_2 * covariance
    contrast = torch.maximum(deviation_1, deviation_2)
    scale = contrast / length.clamp_min(1e-8).sqrt()
    return scale * weight_1, scale * weight_2, contrast


def _mean(image: Tensor) -> Tensor:
    return gaussian_filter(image, _TAPS, _SIGMA, "valid")
