"""Batch normalisation of a batch that several processes share, by the statistics of the whole batch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..runtime.distribution import Ranks


class Statistics(NamedTuple):
    """Means and variances of feature maps, (C,), without Bessel's correction."""

    mean: Tensor
    variance: Tensor


def joined_batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks) -> tuple[Tensor, Statistics]:
    """Normalise by the statistics of all parts, with one exchange forwards and one backwards.

    It can be differentiated any number of times.

    Args:
        x: The part of this process, (N, C, H, W); all parts have the same size.

    Returns:
        The normalised part, (N, C, H, W), and the statistics of the batch, without gradient.
    """
    y, mean, variance = _JoinedBatchNorm.apply(x, weight, bias, eps, ranks)
    return y, Statistics(mean, variance)


class _JoinedBatchNorm(torch.autograd.Function):
    """Calls the kernels of torch for one process, which are several times as fast as `_differentiable`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks) -> tuple[Tensor, ...]:
        _, own_mean, own_inverse = torch.native_batch_norm(x, None, None, None, None, True, 0.0, eps)
        mean, variance = _join(Statistics(own_mean, own_inverse.pow(-2) - eps), ranks)
        ctx.save_for_backward(x, weight, bias, mean, variance)
        ctx.eps, ctx.ranks = eps, ranks
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, variance = ctx.saved_tensors
        eps, ranks = ctx.eps, ctx.ranks
        if torch.is_grad_enabled():  # the gradient itself is differentiated later
            wanted = [tensor for tensor in (x, weight, bias) if tensor.requires_grad]
            y = _differentiable(x, weight, bias, eps, ranks)
            found = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
            return *(next(found) if tensor.requires_grad else None for tensor in (x, weight, bias)), None, None
        # This is the gradient for constant statistics. The rest follows from the sums over all parts.
        by_x, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, eps, [True, True, True]
        )
        mean_by_weight, mean_by_bias = ranks.average((by_weight, by_bias))
        values = x.numel() // x.shape[1]
        inverse = (variance + eps).rsqrt()
        slope = -weight * inverse.square() * mean_by_weight / values
        shift = -weight * inverse * mean_by_bias / values - slope * mean
        by_x.add_(shift.view(-1, 1, 1)).addcmul_(x, slope.view(-1, 1, 1))
        return by_x, by_weight, by_bias, None, None


def _differentiable(x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks) -> Tensor:
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    mean, variance = _join(Statistics(mean, variance), ranks)
    factor = weight * (variance + eps).rsqrt()
    return torch.addcmul((bias - mean * factor).view(-1, 1, 1), x, factor.view(-1, 1, 1))


def _join(own: Statistics, ranks: Ranks) -> Statistics:
    """Compute the statistics of a batch from those of parts of one size.

    The means of the parts are subtracted, because a mean of squares minus a squared mean loses digits to cancellation.
    """
    means, variances = ranks.gather(torch.stack(own).unsqueeze(0), ranks.count).unbind(1)  # (count, C) each
    mean = means.mean(0)
    return Statistics(mean, variances.mean(0) + (means - mean).square().mean(0))
