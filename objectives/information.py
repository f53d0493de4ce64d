"""Mutual information as a training objective."""

import torch
from torch import Tensor

_BINS = 64


def mutual_information(fused: Tensor, sources: Tensor) -> Tensor:
    """Mutual information of a fused image with each source, in bits, from joint histograms of 64 by 64 bins.

    A source's pixel counts in one bin; the fused pixel is shared between the two bins that it lies between, in
    proportion, and the derivative flows through these shares.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        sources: (K, N, 1, H, W) in [0, 1]. No gradient flows to them.

    Returns:
        (K, N), at least 0 and at most 6.
    """
    count, pixels = len(fused), fused[0].numel()
    level = (fused.clamp(0, 1) * (_BINS - 1)).flatten(1)  # (N, HW)
    below = level.detach().floor().clamp(max=_BINS - 2)
    share = level - below  # that of the bin above
    rows = (sources.detach().clamp(0, 1) * (_BINS - 1)).round().long().flatten(2)  # (K, N, HW)
    image = torch.arange(len(sources) * count, device=fused.device).view(-1, count, 1)
    cells = (image * _BINS + rows) * _BINS + below.long()  # (K, N, HW)
    joint = torch.zeros(image.numel() * _BINS**2, dtype=fused.dtype, device=fused.device)
    for cell, part in ((cells, 1 - share), (cells + 1, share)):
        joint = joint.scatter_add(0, cell.flatten(), part.expand_as(cell).flatten())
    joint = joint.view(-1, count, _BINS, _BINS) / pixels
    return _entropy(joint.sum(-1)) + _entropy(joint.sum(-2)) - _entropy(joint.flatten(2))


def _entropy(probabilities: Tensor) -> Tensor:  # (K, N, outcomes) -> (K, N)
    return -(probabilities * torch.log2(probabilities + 1e-9)).sum(-1)
