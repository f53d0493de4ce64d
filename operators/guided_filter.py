"""The guided filter, which splits features into a low-frequency and a high-frequency part."""

import torch
from torch import Tensor
from torch.nn import functional as F


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Average (N, C, H, W) over the pixels of the image in the window of 2 radius + 1 pixels around each pixel."""
    size, pad = 2 * radius + 1, radius
    rows = F.avg_pool2d(x, (size, 1), stride=1, padding=(pad, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, size), stride=1, padding=(0, pad), count_include_pad=False)


def guided_low_parts(guide: Tensor, x: Tensor, radii: tuple[int, ...], epsilons: tuple[float, ...]) -> list[Tensor]:
    """Smooth features along the edges of a guide, once for each radius and epsilon.

    He, Sun and Tang, "Guided Image Filtering", ECCV 2010, eq. 5, 6 and 8. Windows are cut at the border, as in the
    published networks.

    Args:
        guide: The image whose edges are kept, (N, 1, H, W).
        x: The features to smooth, (N, C, H, W).
        radii: Window radii in pixels, each at least 1.
        epsilons: Regularisers in squared units of the guide, each above 0.

    Returns:
        A tensor (N, C, H, W) for each radius and epsilon, the epsilons of the first radius first.
    """
    parts = []
    for radius in radii:
        mean_guide = box_mean(guide, radius)
        mean_x = box_mean(x, radius)
        variance = box_mean(guide * guide, radius) - mean_guide**2
        covariance = box_mean(guide * x, radius) - mean_guide * mean_x
        for epsilon in epsilons:
            slope = covariance / (variance + epsilon)
            offset = mean_x - slope * mean_guide
            parts.append(box_mean(slope, radius) * guide + box_mean(offset, radius))
    return parts


def channel_range(x: Tensor) -> Tensor:
    """Subtract the minimum over the channels from the maximum: (N, C, H, W) -> (N, 1, H, W)."""
    return torch.sub(x.amax(1, keepdim=True), x.amin(1, keepdim=True))
