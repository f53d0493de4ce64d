"""A depthwise convolution whose gradients are fast on a CPU, for every kernel and dilation of the search space.

oneDNN has tuned code for the forward pass of any depthwise convolution, but for the weight gradient only of the
undilated 3x3; the other cases fall back to code that is 5 to 20 times slower. So the input gradient is computed as a
forward convolution with the mirrored kernel, and the weight gradient is put together from undilated 3x3 ones.
`benchmarks/depthwise.py` measures the gain.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _Depthwise(torch.autograd.Function):
    """y = x * w per channel; backward is made of differentiable operations, so higher orders exist."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        context.save_for_backward(x, weight)
        context.dilation = dilation
        return _convolve(x, weight, dilation)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = context.saved_tensors
        x_gradient = weight_gradient = None
        if context.needs_input_grad[0]:
            x_gradient = _Depthwise.apply(gradient, weight.flip(2, 3), context.dilation)
        if context.needs_input_grad[1]:
            weight_gradient = _WeightGradient.apply(x, gradient, weight.shape[-1], context.dilation)
        return x_gradient, weight_gradient, None


class _WeightGradient(torch.autograd.Function):
    """w_c(u) = sum_p x_c(p + u) g_c(p): bilinear in x and g, so its own gradients are convolutions again."""

    @staticmethod
    def forward(context: Any, x: Tensor, gradient: Tensor, kernel: int, dilation: int) -> Tensor:
        context.save_for_backward(x, gradient)
        context.dilation = dilation
        return _correlate(x, gradient, kernel, dilation)

    @staticmethod
    def backward(context: Any, outer: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, gradient = context.saved_tensors
        x_outer = gradient_outer = None
        if context.needs_input_grad[0]:
            x_outer = _Depthwise.apply(gradient, outer.flip(2, 3), context.dilation)
        if context.needs_input_grad[1]:
            gradient_outer = _Depthwise.apply(x, outer, context.dilation)
        return x_outer, gradient_outer, None, None


def _convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=weight.shape[0])


def _correlate(x: Tensor, gradient: Tensor, kernel: int, dilation: int) -> Tensor:
    """Return the weight gradient (C, 1, kernel, kernel) of a size-preserving depthwise convolution."""
    if dilation == 2:
        # The pixels of each row and column parity are an undilated problem of their own.
        return _correlate(_parities(x), _parities(gradient), kernel, 1)
    channels, (height, width) = x.shape[1], x.shape[2:]
    weight = x.new_empty(channels, 1, 3, 3)
    if kernel == 3:
        return _backward_weight(gradient, x, weight, 1)
    # Blocks of 3x3 taps, neighbours sharing a row or column, cover the kernel.
    offsets = range(0, kernel - 2, 2)
    padded = F.pad(x, (kernel // 2,) * 4)
    result = x.new_empty(channels, 1, kernel, kernel)
    for row in offsets:
        for column in offsets:
            window = padded[:, :, row : row + height + 2, column : column + width + 2]
            result[:, :, row : row + 3, column : column + 3] = _backward_weight(gradient, window, weight, 0)
    return result


def _backward_weight(gradient: Tensor, x: Tensor, weight: Tensor, padding: int) -> Tensor:
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, (1, 1), (padding,) * 2, (1, 1), False, (0, 0), x.shape[1], (False, True, False)
    )[1]


def _parities(x: Tensor) -> Tensor:
    """Stack the four row and column parities of (N, C, H, W) along the batch, odd sizes filled up with zeros."""
    samples, channels, height, width = x.shape
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    pixels = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (N, H/2, 2, W/2, 2, C)
    return pixels.permute(2, 4, 0, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def depthwise_convolution(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Convolve groups of feature maps to one map each, keeping the size; differentiable to any order.

    Args:
        x: (N, m C, H, W).
        weight: (C, m, k, k), k of 3, 5 or 7; output c reads the inputs m c to m c + m - 1.
        dilation: 1 or 2.

    Returns:
        (N, C, H, W).
    """
    if x.device.type != "cpu":
        return _convolve(x, weight, dilation)
    channels, inputs = weight.shape[:2]
    if inputs == 1:
        return _Depthwise.apply(x, weight, dilation)
    # Several inputs per group have no tuned code either: one map per input, then the sum of each group.
    maps = _Depthwise.apply(x, weight.reshape(channels * inputs, 1, *weight.shape[2:]), dilation)
    group_sum = torch.eye(channels, dtype=x.dtype).repeat_interleave(inputs, 1)  # (C, m C)
    return F.linear(maps.permute(0, 2, 3, 1), group_sum).permute(0, 3, 1, 2)
