"""Mutual information as a training objective."""

import torch
from torch import Tensor

_BINS = 64


def mutual_information(fused: Tensor, sources: Tensor) -> Tensor:
    """Compute the mutual information of a fused image with each source, from joint histograms of 64 by 64 bins.

        MI(F, I) = H(F) + H(I) - H(F, I)

    Each pixel of a source counts in one bin. Each fused pixel counts in the two bins next to its level, in proportion
    to the distance, and the derivative is that of these shares.

    Args:
        fused: Fused image F, (N, 1, H, W), in [0, 1].
        sources: Stack of K sources I, (K, N, 1, H, W), in [0, 1]. They receive no gradient.

    Returns:
        (K, N) in bits, 0 to 6.

    Example:
        >>> image = torch.linspace(0, 1, 64).view(1, 1, 8, 8)  # 64 levels: 6 bits
        >>> print(f"{mutual_information(image, image[None]).item():.2f}")
        6.00
    """
    count, pixels = len(fused), fused[0].numel()
    level = (fused.clamp(0, 1) * (_BINS - 1)).flatten(1)  # (N, HW)
    # A level that is not a number has a bin, and makes its share and so the result not a number.
    below = level.detach().floor().nan_to_num(0).clamp(max=_BINS - 2)
    share = level - below  # share of the upper bin
    rows = (sources.detach().clamp(0, 1) * (_BINS - 1)).round().nan_to_num(0).long().flatten(2)  # (K, N, HW)
    image = torch.arange(len(sources) * count, device=fused.device).view(-1, count, 1)
    cells = (image * _BINS + rows) * _BINS + below.long()  # (K, N, HW)
    joint = torch.zeros(image.numel() * _BINS**2, dtype=fused.dtype, device=fused.device)
    for cell, part in ((cells, 1 - share), (cells + 1, share)):
        joint = joint.scatter_add(0, cell.flatten(), part.expand_as(cell).flatten())
    joint = joint.view(-1, count, _BINS, _BINS) / pixels
    return _entropy(joint.sum(-1)) + _entropy(joint.sum(-2)) - _entropy(joint.flatten(2))


def _entropy(probabilities: Tensor) -> Tensor:  # (K, N, outcomes) -> (K, N)
    return -(probabilities * torch.log2(probabilities + 1e-9)).sum(-1)
