"""How the networks treat the borders of images: reflected by convolutions, repeated up to sizes that can be halved."""

from torch import Tensor, nn
from torch.nn import functional as F


def reflected(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """Make a convolution that keeps the size, with reflected borders.

    Args:
        inputs: Number of feature maps.
        outputs: Number of feature maps.
        kernel: Height and width in pixels, odd.

    Returns:
        A module that maps (N, inputs, H, W) to (N, outputs, H, W).
    """
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect" if kernel > 1 else "zeros")


def padded(images: Tensor, multiple: int) -> Tensor:
    """Grow images on the right and at the bottom by repeating the last pixels.

    Args:
        images: (N, K, H, W).
        multiple: What height and width are to be multiples of.

    Returns:
        (N, K, H', W'), the next such sizes.
    """
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
