"""The transfer of edges from the sources as a training objective."""

import math

import torch
from torch import Tensor

from .gradients import sobel

_FLOOR = (1 / 255 / 8) ** 2  # squared gradient below which an edge has no direction: a Sobel sum of one grey level


def edge_transfer(fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Q^{AB/F}: how well strength and direction of the sources' edges are kept, weighted by their strength.

    (Xydeas and Petrović, "Objective image fusion performance measure", Electronics Letters 2000.) Directions are
    compared by the angle between the gradients' lines, which is 0 for an inverted edge as it is there; the metric's
    branches at 0 and ±90° are left out, since they have no derivative.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        first: (N, 1, H, W) in [0, 1].
        second: (N, 1, H, W) in [0, 1].

    Returns:
        (N,) in [0, 1].
    """
    across, down = sobel(fused)
    strength = torch.sqrt(across * across + down * down + _FLOOR)
    kept = total = torch.zeros((), device=fused.device, dtype=fused.dtype)
    for source in (first, second):
        source_across, source_down = sobel(source)
        source_strength = torch.sqrt(source_across * source_across + source_down * source_down + _FLOOR)
        ratio = torch.minimum(strength, source_strength) / torch.maximum(strength, source_strength)
        cosine = ((across * source_across + down * source_down).abs() + _FLOOR) / (strength * source_strength)
        # The arc cosine's derivative is infinite at 1.
        alignment = 1 - torch.acos(cosine.clamp(max=1 - 1e-4)) / (math.pi / 2)
        quality = 0.9994 * torch.sigmoid(15 * (ratio - 0.5)) * 0.9879 * torch.sigmoid(22 * (alignment - 0.8))
        kept = kept + (quality * source_strength).sum((-1, -2, -3))
        total = total + source_strength.sum((-1, -2, -3))
    return kept / total
