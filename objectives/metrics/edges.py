"""Qabf, the preservation of the edges of the sources."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .bands import band_sum, row_bands
from .pictures import Pictures

# The sigmoids that rate strength and orientation: height, slope and centre.
_STRENGTH = (0.9994, 15.0, 0.5)
_ORIENTATION = (0.9879, 22.0, 0.8)
_TINY = 1e-30  # vanishes beside any other value, and avoids slow special cases of root and arctangent


def edge_preservation(pictures: Pictures) -> Tensor:
    """Compute Qabf, the edge information of the sources that the fused picture keeps.

        Q = Σ_k Σ_x q(F, I_k) |∇I_k| / Σ_k Σ_x |∇I_k|

    The quality q of a pixel is the product of a sigmoid of the ratio of gradient strengths and a sigmoid of the
    difference of orientations. Gradients are Sobel's, with a border of zeros, and the exponent L is 1. As in the code
    that the field uses, the ratio of two equal strengths is that strength instead of 1, and orientations do not wrap
    around at ±90 degrees.

    Returns:
        (N,), 0 to 0.9753, which F = A = B has; NaN if all sources are flat.

    References:
        Xydeas and Petrović, "Objective image fusion performance measure" (Electronics Letters 2000).
    """
    sources, count = pictures.sources.shape[:2]
    every = torch.cat((pictures.sources.flatten(0, 1), pictures.fused[0]))
    every = F.pad(every, (1, 1, 1, 1)).transpose(0, 1)  # (H + 2, sources K + N, W + 2)
    height, width = pictures.fused.shape[-2:]
    kept = total = torch.zeros((), device=every.device, dtype=torch.float64)
    for rows in row_bands(height, every.shape[1] * width, every.device):
        polar = _polar(*sobel(every[rows.start : rows.stop + 2].float()))
        strength, angle = (x[:, : sources * count].unflatten(1, (sources, count)) for x in polar)
        fused_strength, fused_angle = (x[:, sources * count :].unsqueeze(1) for x in polar)
        kept = kept + band_sum(_preserved(fused_strength, strength, fused_angle, angle).mul_(strength))  # (sources, N)
        total = total + band_sum(strength)  # (sources, K)
    kept, total = kept.sum(0), total.sum(0)
    # A flat source has no edges but those towards the border of zeros.
    return (kept / total).masked_fill(pictures.flat_sources.all(0), math.nan)


def sobel(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Compute Sobel gradients without normalisation.

    Args:
        padded: Pictures with the border that the gradients use, (H + 2, C, W + 2).

    Returns:
        Eight times the derivatives across and down, (H, C, W) each.
    """
    smooth = torch.add(padded[:-2], padded[2:]).add_(padded[1:-1], alpha=2)
    across = smooth[..., 2:] - smooth[..., :-2]
    smooth = torch.add(padded[..., :-2], padded[..., 2:]).add_(padded[..., 1:-1], alpha=2)
    return across, smooth[2:] - smooth[:-2]


def _polar(across: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Compute strength and orientation of a gradient; the latter is π/2 + atan(down / across), and 0 for across = 0.

    The sign is that of the field's code, whose convolution flips the kernel. It matters for vertical gradients.
    """
    strength = (across * across).addcmul_(down, down).add_(_TINY).sqrt_()
    angle = torch.atan2(across.abs(), down.mul_(across.sign().neg_()).add_(_TINY))
    return strength, angle


def _preserved(fused_strength: Tensor, strength: Tensor, fused_angle: Tensor, angle: Tensor) -> Tensor:
    """Compute q of every pixel, (h, S, N, W), from (h, 1, N, W) of fused pictures and (h, S, K, W) of S sources."""
    weaker, stronger = torch.minimum(fused_strength, strength), torch.maximum(fused_strength, strength)
    differ = torch.ne(weaker, stronger, out=torch.empty_like(weaker))
    # The larger of two different strengths is at least 1, so the lower bound changes only the ratio of equal ones.
    ratio = weaker.div_(stronger.mul_(differ).clamp_(min=1))
    height_strength, slope, centre = _STRENGTH
    of_strength = ratio.sub_(centre).mul_(slope).sigmoid_()
    turn = (fused_angle - angle).abs_()
    height_orientation, slope, centre = _ORIENTATION
    of_orientation = turn.mul_(-slope / (math.pi / 2)).add_(slope * (1 - centre)).sigmoid_()
    return of_strength.mul_(of_orientation).mul_(height_strength * height_orientation)
