"""The envelope head, which weighs the brighter and the darker source at each pixel."""

import torch
from torch import Tensor, nn


def enveloped(maps: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Weigh the brighter and the darker source at each pixel: u max(A, B) + l min(A, B) + o, not clipped.

    Args:
        maps: The weights u and l and the offset o, (N, 3, H, W).
    """
    upper, lower, offset = maps.split(1, 1)
    return upper * torch.maximum(first, second) + lower * torch.minimum(first, second) + offset


@torch.no_grad()
def start_near_maximum(last: nn.Module, area: int = 1) -> None:
    """Start an envelope head near 0.9 max(A, B) + 0.1 min(A, B) by small weights and these biases.

    Args:
        area: Number of output channels for each of the maps u, l and o, at least 1.
    """
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight.mul_(0.1)
    last.bias.copy_(torch.tensor([0.9, 0.1, 0.0]).repeat_interleave(area))
