"""The envelope head: a fused image between and around its two sources, weighed at each pixel."""

import torch
from torch import Tensor, nn


def enveloped(maps: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Weigh the brighter and the darker source at each pixel: u max(A, B) + l min(A, B) + o.

    Args:
        maps: (N, 3, H, W), u, l and o.
        first: (N, 1, H, W), A.
        second: (N, 1, H, W), B.

    Returns:
        (N, 1, H, W).
    """
    upper, lower, offset = maps.split(1, 1)
    return upper * torch.maximum(first, second) + lower * torch.minimum(first, second) + offset


@torch.no_grad()
def start_near_maximum(last: nn.Module, area: int = 1) -> None:
    """Make an envelope head begin near 0.9 max(A, B) + 0.1 min(A, B): its last layer's weights small, its biases so.

    Args:
        last: The convolution that gives the maps.
        area: Pixels of each map that it gives side by side as channels.
    """
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight.mul_(0.1)
    last.bias.copy_(torch.tensor([0.9, 0.1, 0.0]).repeat_interleave(area))
