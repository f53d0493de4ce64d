"""Qcv, the visible difference between the fused picture and its sources."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .edges import sobel
from .pictures import Pictures

_SIDE = 16  # width and height of a region in pixels
_SALIENCY_POWER = 5
_VISUAL_ANGLE = 4  # degrees that height and width of a picture span


def visible_difference(pictures: Pictures) -> Tensor:
    """Compute Qcv, the mean squared visible difference to the sources, weighted by the saliency of regions.

        Q = Σ_r s_r d_r / Σ_r s_r

    As in the code that the field uses, every picture is first stretched to 0..255, unless it is flat. A difference is
    visible as far as it passes the contrast sensitivity function of Mannos and Sakrison; d is the mean of its square in
    a region of 16x16 pixels. Regions at the border are filled up with zeros. The saliency s of a region is the sum of
    its Sobel gradients to the power of 5.

    Returns:
        (N,) squared grey levels; 0 is best; NaN if both sources are flat.

    References:
        Chen and Varshney, "A human perception inspired quality metric for image fusion based on regional information"
        (Information Fusion 2007).
    """
    fused, sources = _stretched(pictures.fused), _stretched(pictures.sources)  # (1, N, H, W), (2, K, H, W)
    across, down = sobel(F.pad(sources.flatten(0, 1), (1, 1, 1, 1)).transpose(0, 1))  # (H, 2K, W)
    powers = across.square_().addcmul_(down, down).pow_(_SALIENCY_POWER / 2).transpose(0, 1)
    saliency = _region_sums(powers.view_as(sources))  # (2, K, h, w)
    height, width = sources.shape[-2:]
    spectrum = torch.fft.rfft2(sources - fused).mul_(_contrast_sensitivity(height, width, sources.device))
    visible = _region_sums(torch.fft.irfft2(spectrum, s=(height, width)).square_()) / _SIDE**2  # (2, N, h, w)
    weighted = (saliency * visible).sum((0, 2, 3)) / saliency.sum((0, 2, 3))
    return weighted.masked_fill(pictures.flat_sources.all(0), math.nan)


def _stretched(images: Tensor) -> Tensor:
    """Stretch grey levels to whole numbers from 0 to 255, float64."""
    images = images.double()
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    stretched = ((images - low) / (high - low).clamp(min=1)).mul_(255).round_()
    return torch.where(high > low, stretched, images)


def _contrast_sensitivity(height: int, width: int, device: torch.device) -> Tensor:
    """Compute the sensitivity of the eye at the frequencies of a real Fourier transform, (H, W // 2 + 1)."""
    down = torch.fft.fftfreq(height, 1 / height, dtype=torch.float64, device=device)
    across = torch.fft.rfftfreq(width, 1 / width, dtype=torch.float64, device=device)
    scaled = 0.144 * torch.hypot(down[:, None], across) / _VISUAL_ANGLE  # 0.144 of the cycles per degree
    return 2.6 * (0.0192 + scaled) * torch.exp(-(scaled**1.1))


def _region_sums(maps: Tensor) -> Tensor:
    """Sum over regions, (S, N, H, W) to (S, N, ceil(H / 16), ceil(W / 16))."""
    height, width = maps.shape[-2:]
    filled = F.pad(maps, (0, -width % _SIDE, 0, -height % _SIDE))
    return filled.unflatten(-1, (-1, _SIDE)).unflatten(-3, (-1, _SIDE)).sum((-3, -1))
