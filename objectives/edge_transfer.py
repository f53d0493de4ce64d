"""The transfer of edges from the sources, Q^{AB/F}, as a training objective."""

import math

import torch
from torch import Tensor

from .sobel import sobel

_FLOOR = (1 / 255 / 8) ** 2  # squared gradient of a Sobel sum of one grey level: weaker edges have no direction


def edge_transfer(fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Measure how well the fused image keeps strength and direction of the sources' edges (Q^{AB/F}).

        Q = Σ_k Σ_x q(F, I_k) |∇I_k| / Σ_k Σ_x |∇I_k|

    The quality q of a pixel is the product of a sigmoid of the ratio of gradient strengths and a sigmoid of the angle
    between the gradients' lines. As in the metric, an inverted edge has the angle 0. The metric's special cases at
    angles of 0 and ±90° are left out, because they have no derivative.

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1], like both sources I_k.

    Returns:
        (N,), in [0, 1].

    References:
        Xydeas and Petrović, "Objective image fusion performance measure" (Electronics Letters 2000).

    Example:
        >>> edges, flat = torch.eye(8)[None, None], torch.zeros(1, 1, 8, 8)
        >>> bool(edge_transfer(edges, edges, flat) > 0.9 > 0.1 > edge_transfer(flat, edges, flat))
        True
    """
    across, down = sobel(fused)
    strength = torch.sqrt(across * across + down * down + _FLOOR)
    kept = total = torch.zeros((), device=fused.device, dtype=fused.dtype)
    for source in (first, second):
        source_across, source_down = sobel(source)
        source_strength = torch.sqrt(source_across * source_across + source_down * source_down + _FLOOR)
        ratio = torch.minimum(strength, source_strength) / torch.maximum(strength, source_strength)
        cosine = ((across * source_across + down * source_down).abs() + _FLOOR) / (strength * source_strength)
        # The derivative of the arc cosine is infinite at 1.
        alignment = 1 - torch.acos(cosine.clamp(max=1 - 1e-4)) / (math.pi / 2)
        quality = 0.9994 * torch.sigmoid(15 * (ratio - 0.5)) * 0.9879 * torch.sigmoid(22 * (alignment - 0.8))
        kept = kept + (quality * source_strength).sum((-1, -2, -3))
        total = total + source_strength.sum((-1, -2, -3))
    return kept / total
