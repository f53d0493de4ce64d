"""Visual information fidelity (VIF) as a training objective."""

import torch
from torch import Tensor

from .window import gaussian_filter

_NOISE = 2.0  # variance of the visual noise, in squared grey levels of 0..255
_EPSILON = 1e-2  # squared grey levels, less than any visible texture has


def visual_fidelity(fused: Tensor, sources: Tensor) -> Tensor:
    """Compute the pixel-domain VIF of a fused image with each source, with a derivative everywhere.

        VIF = Σ log(1 + g² var(I) / (v + 2)) / Σ log(1 + var(I) / 2),  g = cov(I, F) / var(I),  v = var(F) - g cov(I, F)

    The sums are over four scales, or as many as fit, and all windows, in grey levels of 0..255. VIF is the share of the
    source's information that an observer with visual noise of variance 2 still finds in the fused image. It exceeds 1
    where the fused image has more contrast than the source. `metrics` computes it exactly; here 0.01 is added to
    denominators.

    Args:
        fused: Fused image F, (N, 1, H, W), in [0, 1]; H and W are at least 17; from 41 on all scales fit.
        sources: Stack of K sources I, (K, N, 1, H, W), in [0, 1].

    Returns:
        (K, N), at least 0.

    References:
        Sheikh and Bovik, "Image information and visual quality" (IEEE TIP 2006).

    Example:
        >>> image = torch.eye(48)[None, None]
        >>> visual_fidelity(image, torch.stack([image, 1 - image])).flatten().round()  # the inverse shares nothing
        tensor([1., 0.])
    """
    fused, sources = 255 * fused, 255 * sources
    kept = total = torch.zeros((), device=fused.device, dtype=fused.dtype)
    for scale in range(4):
        taps = 2 ** (4 - scale) + 1
        if scale and (min(fused.shape[-2:]) - taps + 2) // 2 < taps:  # the side at this scale
            break

        def blur(image: Tensor, taps: int = taps) -> Tensor:
            return gaussian_filter(image, taps, taps / 5, "valid")

        if scale:
            fused, sources = blur(fused)[..., ::2, ::2], blur(sources)[..., ::2, ::2]
        mean_f, mean_s = blur(fused), blur(sources)
        variance_f = (blur(fused * fused) - mean_f * mean_f).clamp_min(0)
        variance_s = (blur(sources * sources) - mean_s * mean_s).clamp_min(0)
        covariance = blur(fused * sources) - mean_f * mean_s
        gain = (covariance / (variance_s + _EPSILON)).clamp_min(0)  # an inverted texture counts as lost
        distortion = (variance_f - gain * covariance).clamp_min(0)
        kept = kept + torch.log1p(gain * gain * variance_s / (distortion + _NOISE)).sum((-1, -2, -3))
        total = total + torch.log1p(variance_s / _NOISE).sum((-1, -2, -3))
    return (kept + _EPSILON) / (total + _EPSILON)
