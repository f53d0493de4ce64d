"""The borders of images: convolutions reflect them, and networks repeat them up to sizes that can be halved."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def reflected(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """Make a convolution with reflected borders, from (N, inputs, H, W) to (N, outputs, H, W).

    Args:
        kernel: Height and width of the kernel in pixels, odd.
    """
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect" if kernel > 1 else "zeros")


def repeated(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Make a convolution with repeated borders, from (N, inputs, H, W) to (N, outputs, H / stride, W / stride).

    Repeating works for maps of any size, and reflecting for those that are larger than half the kernel.

    Args:
        kernel: Height and width of the kernel in pixels, odd.
        stride: Distance of outputs in pixels; H and W are multiples of it.
    """
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, padding_mode="replicate")


def padded(images: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Repeat the last row and column of (N, K, H, W) until height and width are multiples of `multiple` pixels.

    Args:
        least: Smallest height and width of the result in pixels.
    """
    height, width = images.shape[-2:]
    # The functions of Python would make an exported network one for this size.
    right, bottom = (torch.sym_max(-length % multiple, least - length) for length in (width, height))
    if isinstance(right, int) and isinstance(bottom, int) and right == bottom == 0:
        return images  # a padding by nothing would copy them
    return F.pad(images, (0, right, 0, bottom), mode="replicate")
