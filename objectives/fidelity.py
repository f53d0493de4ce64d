"""Visual information fidelity as a training objective."""

import torch
from torch import Tensor

from .window import gaussian_filter

_NOISE = 2.0  # variance of the visual noise, in squared grey levels of 0..255
_EPSILON = 1e-2  # squared grey levels: below any texture that shows


def visual_fidelity(fused: Tensor, sources: Tensor) -> Tensor:
    """Pixel-domain VIF of a fused image with each source, with a derivative everywhere.

    How much of the information that an observer with visual noise takes from a source comes through in the fused
    image, at four scales (Sheikh and Bovik, "Image information and visual quality", IEEE TIP 2006). More contrast than
    the source's own counts as more than 1. `metrics` has the exact value of a picture in 8 bits, to which this agrees
    but for a variance of 0.01 grey levels added to denominators.

    Args:
        fused: (N, 1, H, W) in [0, 1], H and W at least 41.
        sources: (K, N, 1, H, W) in [0, 1].

    Returns:
        (K, N), at least 0.
    """
    fused, sources = 255 * fused, 255 * sources
    carried = told = torch.zeros((), device=fused.device, dtype=fused.dtype)
    for scale in range(4):
        taps = 2 ** (4 - scale) + 1

        def blur(image: Tensor, taps: int = taps) -> Tensor:
            return gaussian_filter(image, taps, taps / 5, "valid")

        if scale:
            fused, sources = blur(fused)[..., ::2, ::2], blur(sources)[..., ::2, ::2]
        mean_f, mean_s = blur(fused), blur(sources)
        variance_f = (blur(fused * fused) - mean_f * mean_f).clamp_min(0)
        variance_s = (blur(sources * sources) - mean_s * mean_s).clamp_min(0)
        covariance = blur(fused * sources) - mean_f * mean_s
        gain = (covariance / (variance_s + _EPSILON)).clamp_min(0)  # an inverted texture carries nothing
        distortion = (variance_f - gain * covariance).clamp_min(0)
        carried = carried + torch.log1p(gain * gain * variance_s / (distortion + _NOISE)).sum((-1, -2, -3))
        told = told + torch.log1p(variance_s / _NOISE).sum((-1, -2, -3))
    return (carried + _EPSILON) / (told + _EPSILON)
