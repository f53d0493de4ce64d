"""The borders of images: convolutions reflect them, and networks repeat them up to sizes that can be halved."""

from torch import Tensor, nn
from torch.nn import functional as F


def reflected(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """Make a convolution with reflected borders, from (N, inputs, H, W) to (N, outputs, H, W).

    Args:
        kernel: Height and width of the kernel in pixels, odd.
    """
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect" if kernel > 1 else "zeros")


def padded(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of (N, K, H, W) until height and width are multiples of `multiple` pixels."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
