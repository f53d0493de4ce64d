"""A depthwise convolution whose gradients are fast on a CPU, for every kernel and dilation of the search space.

oneDNN has fast code for the forward pass of any depthwise convolution. Its weight gradient is fast for undilated
kernels of at most three columns only; for other kernels and for groups of several inputs it is up to ten times slower.
Here the input gradient is a forward convolution with the mirrored kernel, and the weight gradient is computed in
undilated blocks of three columns. `benchmarks/depthwise.py` measures the gain.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _Depthwise(torch.autograd.Function):
    """Compute y(p) = Σ_u w(u) x(p + u) in each channel."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        context.save_for_backward(x, weight)
        context.dilation = dilation
        return _convolve(x, weight, dilation)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = context.saved_tensors
        # Recording only where the gradient is differentiated later saves half the overhead.
        again = torch.is_grad_enabled()
        convolve, correlate = (_Depthwise.apply, _WeightGradient.apply) if again else (_convolve, _correlate)
        x_gradient = weight_gradient = None
        if context.needs_input_grad[0]:
            x_gradient = convolve(gradient, weight.flip(2, 3), context.dilation)
        if context.needs_input_grad[1]:
            weight_gradient = correlate(x, gradient, weight.shape[-1], context.dilation)
        return x_gradient, weight_gradient, None


class _WeightGradient(torch.autograd.Function):
    """Compute w(u) = Σ_p x(p + u) g(p) in each channel. It is bilinear, so its gradients are convolutions."""

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
    """Compute the weight gradient (C, 1, kernel, kernel) of a depthwise convolution that keeps the size."""
    if dilation == 2:
        # The pixels of one row parity and one column parity meet undilated kernels.
        parities = _correlate(_folded(x, kernel), _folded(gradient, kernel), kernel, 1)
        return parities.unflatten(0, (2, -1)).sum(0)
    channels, width = x.shape[1], x.shape[3]
    # Blocks of three columns cover the kernel; neighbours overlap by one column.
    padded = F.pad(x, (kernel // 2, kernel // 2)) if kernel > 3 else x
    block = x.new_empty(channels, 1, kernel, 3)
    result = x.new_empty(channels, 1, kernel, kernel)
    for column in range(0, kernel - 2, 2):
        window = padded[..., column : column + width + 2].contiguous(memory_format=torch.channels_last)
        padding = (kernel // 2, 0 if kernel > 3 else 1)
        result[..., column : column + 3] = torch.ops.aten.convolution_backward(
            gradient, window, block, None, (1, 1), padding, (1, 1), False, (0, 0), channels, (False, True, False)
        )[1]
    return result


def _folded(x: Tensor, kernel: int) -> Tensor:
    """Place the row parities of (N, C, H, W) side by side and stack the column parities as channels.

    In channels-last order this is a view. Zero columns between the parities separate them.
    """
    height, width = x.shape[2:]
    x = F.pad(x, (0, 2 * (kernel // 2) + width % 2, 0, height % 2))
    pixels = x.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C)
    samples, height, width, channels = pixels.shape
    return pixels.view(samples, height // 2, width, 2 * channels).permute(0, 3, 1, 2)


def depthwise_convolution(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Convolve each group of m feature maps to one map of the same size; differentiable to any order.

    Args:
        x: Feature maps, (N, m C, H, W).
        weight: Kernels, (C, m, k, k) with k of 3, 5 or 7; output c reads the inputs m c to m c + m - 1.
        dilation: Distance between the taps of the kernel in pixels, 1 or 2.
    """
    if x.device.type != "cpu":
        return _convolve(x, weight, dilation)
    inputs, kernel = weight.shape[1:3]
    weight = weight.reshape(-1, 1, kernel, kernel)  # one map per input
    tuned = kernel == 3 and dilation == 1
    maps = _convolve(x, weight, 1) if tuned else _Depthwise.apply(x, weight, dilation)
    if inputs == 1:
        return maps
    group_sum = torch.eye(len(weight) // inputs, dtype=x.dtype).repeat_interleave(inputs, 1)  # (C, m C)
    return F.linear(maps.permute(0, 2, 3, 1), group_sum).permute(0, 3, 1, 2)
