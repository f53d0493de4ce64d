"""The normalisation that follows a pointwise convolution: batch as in TIM, group, or none.

Each takes an optional scale, a number that multiplies its output: folded into the affine parameters it costs nothing,
where multiplying the feature maps would cost a pass over them forwards and two backwards.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..runtime.distribution import ALONE, Ranks
from .joined_normalisation import joined_batch_norm

NORMS = ("batch", "group", "none")


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation (N, C, H, W) -> (N, C, H, W), optionally times a scale."""

    ranks = ALONE  # whose parts of a batch are normalised together; see `synchronised`

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        if self.training and self.ranks.count > 1:
            return self._joined(
                x, *((self.weight, self.bias) if scale is None else (self.weight * scale, self.bias * scale))
            )
        if scale is None:
            return super().forward(x)
        if self.momentum is None:  # a plain average of the statistics, whose weight torch works out
            return super().forward(x) * scale
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight * scale,
            self.bias * scale,
            self.training,
            self.momentum,
            self.eps,
        )

    def _joined(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y, statistics = joined_batch_norm(x, weight, bias, self.eps, self.ranks)
        values = self.ranks.count * x.numel() // x.shape[1]
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.lerp_(statistics.mean, momentum)
            self.running_var.lerp_(statistics.variance * (values / (values - 1)), momentum)
        return y


@contextmanager
def synchronised(network: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Let every `BatchNorm` of a network take its statistics, in training mode, over the parts of all processes.

    Inside, every process must pass a part of the same size through the network whenever another does.

    Args:
        network: Trained by all processes together.
        ranks: The processes.
    """
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.ranks = ranks
    try:
        yield
    finally:
        for norm in norms:
            norm.ranks = ALONE


class GroupNorm(nn.GroupNorm):
    """Group normalisation (N, C, H, W) -> (N, C, H, W), optionally times a scale."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        weight, bias = (self.weight, self.bias) if scale is None else (self.weight * scale, self.bias * scale)
        # On maps without rows and columns: torch's gradient of channels-last maps crashes where only the affine
        # parameters need one, and is no faster. Not torch.nn.functional's, which refuses a group of one value.
        normalised = torch.group_norm(x.flatten(2), self.num_groups, weight, bias, self.eps)
        return normalised.unflatten(2, x.shape[2:]).contiguous(memory_format=torch.channels_last)


class NoNorm(nn.Module):
    """The identity, optionally times a scale."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return x if scale is None else x * scale


def build_norm(norm: str, channels: int) -> nn.Module:
    """Build the normalisation layer of `channels` feature maps.

    Args:
        norm: "batch" (as in TIM), "group" (at most 8 groups; independent of the batch) or "none".
        channels: number of feature maps, at least 1.

    Returns:
        A module that maps (N, channels, H, W), and optionally a scale, to the same shape.
    """
    if norm == "batch":
        return BatchNorm(channels)
    if norm == "group":
        return GroupNorm(math.gcd(8, channels), channels)
    if norm == "none":
        return NoNorm()
    raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
