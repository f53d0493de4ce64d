"""Rewrites a trained network for use: the same output in fewer passes over memory."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation import PReLU
from .folding import M, fold_batch_norm
from .normalisation import GroupNorm
from .pooling import GlobalMean
from .primitives import DENSE_SCALE, Dense, Depthwise, NonLocal, Pointwise
from .registration import is_registered, without_registered

FEW_MAPS = 4  # with more outputs, the convolution itself is as fast


class FewMaps(nn.Conv2d):
    """Convolve with reflected borders to a few output maps; on a CPU, by a matrix product and shifted sums.

    Vector units compute eight or sixteen output maps at a time, so a convolution to one map takes as long as one to
    sixteen. The products of all pixels with every position of the kernel fill these units.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, outputs, H, W)
        if x.device.type != "cpu":
            return super().forward(x)
        height, width = x.shape[-2:]
        kernel, (outputs, inputs) = self.kernel_size[0], self.weight.shape[:2]
        pixels = F.pad(x, 4 * (kernel // 2,), mode="reflect").permute(0, 2, 3, 1)  # (N, H + 2, W + 2, C)
        weight = self.weight.permute(2, 3, 0, 1).reshape(-1, inputs)  # (kernel kernel outputs, C)
        products = (weight @ pixels.reshape(-1, inputs).T).view(kernel, kernel, outputs, *pixels.shape[:3])
        total = products[0, 0, :, :, :height, :width]
        total = total.clone() if self.bias is None else total + self.bias.view(-1, 1, 1, 1)
        for row in range(kernel):
            for column in range(kernel):
                if row or column:
                    total += products[row, column, :, :, row : row + height, column : column + width]
        return total.transpose(0, 1)


class DenseInParts(nn.Module):
    """The dense operator without gradients: it convolves each input of a layer alone and sums slices.

    A convolution of C maps stays in the cache, and one of their concatenation does not. A sum of slices is faster than
    a matrix product forwards, and slower backwards.
    """

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.first, self.second, self.third = dense.first, dense.second, dense.third
        self.slope = dense.activation.weight.item()

    def forward(self, x: Tensor) -> Tensor:
        x1 = F.leaky_relu_(self.first(x), self.slope)
        x2 = self._layer(self.second, x, x1)
        return torch.add(x, self._layer(self.third, x, x1, x2), alpha=DENSE_SCALE)

    def _layer(self, convolution: Depthwise, *sources: Tensor) -> Tensor:
        padding, dilation = convolution.padding, convolution.dilation
        weights = convolution.weight.flatten(0, 1).unsqueeze(1).chunk(len(sources))  # for each source (C, 1, k, k)
        maps = torch.cat(
            [
                F.conv2d(source, weight, None, 1, padding, dilation, groups=len(weight))
                for source, weight in zip(sources, weights, strict=True)
            ],
            1,
        )
        total = maps[:, :: len(sources)]
        for index in range(1, len(sources)):
            total = total + maps[:, index :: len(sources)]
        return F.leaky_relu_(total, self.slope)


class PooledGroupNorm(nn.Module):
    """Group normalisation whose statistics are a `GlobalMean`, so that they are those of the image in every tile."""

    def __init__(self, norm: GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self.pool = GlobalMean()

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = x - self._of_groups(self.pool(x))
        deviation = (self._of_groups(self.pool(x * x)) + self.norm.eps).sqrt()
        weight, bias = self.norm.weight.view(-1, 1, 1), self.norm.bias.view(-1, 1, 1)
        y = x * (weight / deviation) + bias
        return y if scale is None else y * scale

    def _of_groups(self, means: Tensor) -> Tensor:  # (N, C, 1, 1), each map's mean -> its group's mean
        groups = means.unflatten(1, (self.norm.num_groups, -1))
        return groups.mean(2, keepdim=True).expand_as(groups).flatten(1, 2)


def for_inference(network: M) -> M:
    """Rewrite a network for use: fold normalisations, merge linear layers, compute activations in place.

    Registered operators are not rewritten, except group normalisations of this package in them.

    Returns:
        A copy in evaluation mode without gradients, with the same output up to rounding.

    Example:
        >>> from timfuse.genotypes import load_genotype
        >>> from timfuse.operators import build_network, count_parameters
        >>> network = build_network(load_genotype("tim_light"))
        >>> count_parameters(network) > count_parameters(for_inference(network))
        True
    """
    network = fold_batch_norm(network)
    for module in list(without_registered(network)):
        if isinstance(module, nn.Sequential):
            for index in range(1, len(module)):
                merged = _merged(module[index - 1], module[index])
                if merged is not None:
                    module[index - 1], module[index] = merged, nn.Identity()
        for name, child in module.named_children():
            if is_registered(child):
                continue
            # The non-local block reads the input of its activation again.
            if isinstance(child, PReLU) and not isinstance(module, NonLocal):
                setattr(module, name, nn.LeakyReLU(child.weight.item(), inplace=True))
            elif isinstance(child, Dense):
                setattr(module, name, DenseInParts(child))
            elif isinstance(child, Pointwise):
                setattr(module, name, _plain(child))
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, GroupNorm):
                setattr(module, name, PooledGroupNorm(child))
    return network.eval().requires_grad_(False)


def _plain(pointwise: Pointwise) -> nn.Conv2d:
    """Replace a pointwise convolution by that of torch, which is faster on several threads without gradients."""
    plain = nn.Conv2d(pointwise.in_channels, pointwise.out_channels, 1, bias=False)
    plain.weight, plain.bias = pointwise.weight, pointwise.bias
    return plain


@torch.no_grad()
def _merged(first: nn.Module, second: nn.Module) -> nn.Conv2d | None:
    """Multiply the matrices of a convolution with reflected borders and of the 1x1 convolution that follows it."""
    if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)):
        return None
    if first.padding_mode != "reflect" or second.kernel_size != (1, 1):
        return None
    assert first.bias is not None
    assert second.bias is not None
    kernel, outputs = first.kernel_size[0], second.out_channels
    layer = FewMaps if outputs <= FEW_MAPS else nn.Conv2d
    merged = layer(first.in_channels, outputs, kernel, padding=kernel // 2, padding_mode="reflect").to(first.weight)
    mixing = second.weight.flatten(1).double()  # (outputs, maps between)
    merged.weight.copy_(torch.einsum("om,mikl->oikl", mixing, first.weight.double()))
    merged.bias = nn.Parameter((mixing @ first.bias.double() + second.bias.double()).to(merged.weight))
    return merged
