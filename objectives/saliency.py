"""Histogram saliency and the per-pixel source weights made of it."""

import torch
from torch import Tensor

_BINS = 256


def histogram_saliency(image: Tensor) -> Tensor:
    """How far a pixel's grey level lies from all others of its image.

    S(i) = Σ_j |i − j| h(j), with h the image's histogram over 256 grey levels (Zhai and Shah, "Visual
    Attention Detection in Video Sequences Using Spatiotemporal Cues", 2006), then scaled to [0, 1] by the
    smallest and largest value in each image. Where all are equal no pixel stands out: the saliency is 0.

    Args:
        image: (N, 1, H, W) in [0, 1]. No gradient flows through its histogram.

    Returns:
        (N, 1, H, W) in [0, 1], in the dtype of `image`.
    """
    levels = (image.detach() * (_BINS - 1)).round().long().clamp(0, _BINS - 1).flatten(1)  # (N, HW)
    counts = levels.new_zeros(len(levels), _BINS).scatter_add_(1, levels, torch.ones_like(levels))
    # From level i to i + 1 the distance grows by one for each pixel at or below i and shrinks for all others.
    growth = 2 * counts.cumsum(1) - levels.shape[1]
    distance = growth.cumsum(1) - growth  # exact in integers, up to a constant that the scaling takes away
    occurs, limit = counts > 0, torch.iinfo(distance.dtype).max
    lowest = distance.where(occurs, limit).amin(1, keepdim=True)
    highest = distance.where(occurs, -limit).amax(1, keepdim=True)
    precision = torch.promote_types(image.dtype, torch.float32)  # the sums overflow half precision
    saliency = (distance - lowest).to(precision) / (highest - lowest).clamp(min=1)  # (N, 256)
    return saliency.to(image.dtype).gather(1, levels).view_as(image)


def saliency_weights(first: Tensor, second: Tensor) -> Tensor:
    """Weights of the two sources at each pixel: the softmax over their histogram saliencies.

    As both saliencies lie in [0, 1], each weight lies between 0.27 and 0.73. (TIM, arXiv 2305.15862.)

    Args:
        first: (N, 1, H, W) in [0, 1].
        second: (N, 1, H, W) in [0, 1].

    Returns:
        (2, N, 1, H, W), first and second source, summing to 1 over the first dimension.
    """
    return torch.stack([histogram_saliency(first), histogram_saliency(second)]).softmax(0)
