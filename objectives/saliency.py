"""Histogram saliency, and the weights of the sources at each pixel that follow from it."""

import torch
from torch import Tensor

_BINS = 256


def histogram_saliency(image: Tensor) -> Tensor:
    """Measure how far the grey level of each pixel lies from all others of its image.

        S(i) = Σ_j |i - j| h(j),  h = the image's histogram over 256 grey levels

    The smallest and the largest value in each image are then scaled to 0 and 1. In a flat image the saliency is 0.

    Args:
        image: Image of one channel, (N, 1, H, W), in [0, 1]. It receives no gradient.

    Returns:
        (N, 1, H, W), in [0, 1], in the dtype of `image`.

    References:
        Zhai and Shah, "Visual Attention Detection in Video Sequences Using Spatiotemporal Cues" (ACM MM 2006).

    Example:
        >>> histogram_saliency(torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]]]))
        tensor([[[[0., 0., 0., 1.]]]])
    """
    levels = (image.detach() * (_BINS - 1)).round().long().clamp(0, _BINS - 1).flatten(1)  # (N, HW)
    counts = levels.new_zeros(len(levels), _BINS).scatter_add_(1, levels, torch.ones_like(levels))
    # From level i to i + 1, the sum grows by 1 for each pixel at or below i and shrinks by 1 for each other pixel.
    growth = 2 * counts.cumsum(1) - levels.shape[1]
    distance = growth.cumsum(1) - growth  # exact in integers, up to a constant that the scaling removes
    occurs, limit = counts > 0, torch.iinfo(distance.dtype).max
    lowest = distance.where(occurs, limit).amin(1, keepdim=True)
    highest = distance.where(occurs, -limit).amax(1, keepdim=True)
    precision = torch.promote_types(image.dtype, torch.float32)  # the sums overflow half precision
    saliency = (distance - lowest).to(precision) / (highest - lowest).clamp(min=1)  # (N, 256)
    return saliency.to(image.dtype).gather(1, levels).view_as(image)


def saliency_weights(first: Tensor, second: Tensor) -> Tensor:
    """Weigh two sources, (N, 1, H, W) in [0, 1], at each pixel by the softmax of their histogram saliencies.

    As both saliencies lie in [0, 1], each weight lies between 0.27 and 0.73.

    Returns:
        (2, N, 1, H, W) for the first and the second source, with sum 1 over the first dimension.

    References:
        Liu et al., "A Task-guided, Implicitly-searched and Meta-initialized Deep Model for Image Fusion" (arXiv
        2305.15862).

    Example:
        >>> hot = torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]]])
        >>> [f"{weight:.2f}" for weight in saliency_weights(hot, torch.zeros_like(hot))[0].flatten()]
        ['0.50', '0.50', '0.50', '0.73']
    """
    return torch.stack([histogram_saliency(first), histogram_saliency(second)]).softmax(0)
