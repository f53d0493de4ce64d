"""Down-sampling, up-sampling and the merge of scales in the multi-scale cell, and pixel shuffling."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation import PReLU
from .pooling import GlobalMean
from .primitives import Pointwise


def unshuffled(x: Tensor, factor: int) -> Tensor:
    """Compute `torch.nn.functional.pixel_unshuffle`, in channels-last layout and in half the time.

    Args:
        x: Feature maps, (N, C, H, W), with H and W multiples of the factor.
    """
    phases = [
        channel[:, row::factor, column::factor]
        for channel in x.unbind(1)
        for row in range(factor)
        for column in range(factor)
    ]
    return torch.stack(phases, 3).permute(0, 3, 1, 2)


def shuffled(x: Tensor, factor: int) -> Tensor:
    """Compute `torch.nn.functional.pixel_shuffle`, channel after channel and in a third of the time.

    Args:
        x: Feature maps, (N, C factor², H, W).
    """
    blocks = x.unflatten(1, (-1, factor, factor)).permute(0, 1, 4, 2, 5, 3)  # (N, C, H, factor, W, factor)
    return blocks.reshape(x.shape[0], blocks.shape[1], factor * x.shape[2], factor * x.shape[3])


class BlurPool(nn.Module):
    """Halve height and width, which are even, by the binomial 3x3 filter with reflected borders.

    Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.channels = channels
        self.register_buffer("kernel", torch.outer(row, row).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H/2, W/2)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=self.channels)


class ResidualDown(nn.Module):
    """Halve height and width and double the channels, by the sum of a convolved and a plain path with blur pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolved = nn.Sequential(
            Pointwise(channels, channels),
            PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            PReLU(),
            BlurPool(channels),
            Pointwise(channels, 2 * channels),
        )
        self.plain = nn.Sequential(BlurPool(channels), Pointwise(channels, 2 * channels))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, 2C, H/2, W/2)
        return self.convolved(x) + self.plain(x)


class ResidualUp(nn.Module):
    """Double height and width and halve the channels, by the sum of a transposed convolution and a bilinear path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolved = nn.Sequential(
            Pointwise(channels, channels),
            PReLU(),
            nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1, bias=False),
            PReLU(),
            Pointwise(channels, channels // 2),
        )
        self.plain = Pointwise(channels, channels // 2)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C/2, 2H, 2W)
        # Pointwise convolution and bilinear interpolation commute, and convolving first reads a quarter of the pixels.
        plain = F.interpolate(self.plain(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.convolved(x) + plain


class SelectiveKernelFusion(nn.Module):
    """Merge `inputs` tensors (N, C, H, W) by softmax weights for each channel, computed from their sum.

    Zamir et al., "Learning Enriched Features for Real Image Restoration and Enhancement", ECCV 2020, eq. 3.
    """

    def __init__(self, channels: int, inputs: int) -> None:
        super().__init__()
        reduced = max(channels // 8, 4)
        self.pool = GlobalMean()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, reduced, 1, bias=False), PReLU())
        self.excite = nn.ModuleList(nn.Conv2d(reduced, channels, 1, bias=False) for _ in range(inputs))

    def forward(self, features: list[Tensor]) -> Tensor:
        descriptor = self.squeeze(self.pool(*features))
        weights = torch.stack([excite(descriptor) for excite in self.excite]).softmax(0)  # (inputs, N, C, 1, 1)
        merged = weights[0] * features[0]
        for weight, x in zip(weights[1:], features[1:], strict=True):
            merged = merged + weight * x
        return merged
