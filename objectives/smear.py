"""Smears: slow structure of the fused image that neither source has, as a metric and as a training objective."""

from functools import reduce

import torch
from torch import Tensor

from .window import gaussian_filter

_TAPS, _SIGMA = 33, 4.0
_FACTOR, _MARGIN = 1.5, 0.5  # of the metric; the margin in grey levels per pixel
_WARNING_FACTOR, _WARNING_MARGIN = 1.2, 0.2  # of the objective, which sets in earlier
_FLAT = 1e-6
SMALLEST_SIDE = _TAPS // 2 + 1


def smear_share(fused: Tensor, *sources: Tensor) -> Tensor:
    """Compute the share of pixels whose slope, after blurring, exceeds those of all sources by half and half a level.

    A pixel is smeared where |∇(G F)| > 1.5 max_k |∇(G I_k)| + 0.5 grey levels of 255 per pixel, with G a Gaussian of
    sigma 4 and reflected borders, and ∇ central differences.

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1]; H and W are at least 17.
        sources: The sources I_k, two or more, each of the shape and range of the fused images.

    Returns:
        (N,), in [0, 1].

    Example:
        >>> ramp = torch.linspace(0, 1, 48).expand(1, 1, 48, 48)
        >>> flat = torch.full_like(ramp, 0.5)
        >>> smear_share(ramp, flat, flat).item(), smear_share(ramp, ramp, flat).item()
        (1.0, 0.0)
    """
    allowed = _FACTOR * reduce(torch.maximum, map(_slope, sources)) + _MARGIN
    return (_slope(fused) > allowed).to(fused.dtype).mean((-1, -2, -3))


def smear_excess(fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Measure by how much slow slopes exceed those of both sources: the mean of max(0, |∇(G F)| - 1.2 m - 0.2).

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1], like both sources; H and W are at least 17. Slopes are as in
            `smear_share`, and m is the larger one of the sources.

    Returns:
        (N,), at least 0, in grey levels of 255 per pixel.

    Example:
        >>> ramp = torch.linspace(0, 1, 48).expand(1, 1, 48, 48)
        >>> smear_excess(ramp, ramp, torch.zeros_like(ramp)).item()
        0.0
    """
    with torch.no_grad():
        allowed = _WARNING_FACTOR * torch.maximum(_slope(first), _slope(second)) + _WARNING_MARGIN
    return (_slope(fused) - allowed).clamp_min(0).mean((-1, -2, -3))


def _slope(image: Tensor) -> Tensor:
    down, across = torch.gradient(gaussian_filter(255 * image, _TAPS, _SIGMA, "reflect"), dim=(-2, -1))
    return (down * down + across * across + _FLAT).sqrt()
