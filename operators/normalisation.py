"""The normalisation that follows a pointwise convolution: batch as in TIM, group, or none.

Each maps (N, C, H, W) to the same shape and takes an optional scalar that multiplies its output. The scalar goes into
the affine parameters, which is free; multiplying the feature maps takes three passes over them.
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
    """Batch normalisation, optionally times a scale.

    Attributes:
        ranks: Processes whose parts of a batch are normalised together; see `synchronised`.
    """

    ranks = ALONE

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        if self.training and self.ranks.count > 1:
            affine = (self.weight, self.bias) if scale is None else (self.weight * scale, self.bias * scale)
            return self._joined(x, *affine)
        if scale is None:
            return super().forward(x)
        if self.momentum is None:  # torch computes the weight of a plain average
            return super().forward(x) * scale
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        weight, bias = self.weight * scale, self.bias * scale
        return F.batch_norm(
            x, self.running_mean, self.running_var, weight, bias, self.training, self.momentum, self.eps
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
    """Make the `BatchNorm` layers of a network compute statistics over the parts of a batch that all processes have.

    In the block, all processes call the network in training mode equally often, with parts of one size.

    Example:
        >>> network = nn.Sequential(BatchNorm(4))
        >>> with synchronised(network, ALONE):
        ...     network(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
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
    """Group normalisation, optionally times a scale."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        weight, bias = (self.weight, self.bias) if scale is None else (self.weight * scale, self.bias * scale)
        # Maps are flattened because the gradient of channels-last maps crashes in torch where only the affine
        # parameters need one. The function of torch.nn.functional refuses groups of one value.
        normalised = torch.group_norm(x.flatten(2), self.num_groups, weight, bias, self.eps)
        return normalised.unflatten(2, x.shape[2:]).contiguous(memory_format=torch.channels_last)


class NoNorm(nn.Module):
    """No normalisation: the input, optionally times a scale."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return x if scale is None else x * scale


def build_norm(norm: str, channels: int) -> nn.Module:
    """Build a normalisation layer.

    Args:
        norm: Normalisation, "batch", "group" (at most 8 groups; independent of the batch) or "none".
    """
    if norm == "batch":
        return BatchNorm(channels)
    if norm == "group":
        return GroupNorm(math.gcd(8, channels), channels)
    if norm == "none":
        return NoNorm()
    raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
