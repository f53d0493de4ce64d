"""Sobel gradients of images."""

import torch
from torch import Tensor
from torch.nn import functional as F

_EPSILON = 1e-6  # under the root, so that flat regions have a finite derivative


def sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel gradients across and down, with replicated borders.

    The kernels are normalised: a ramp of slope s per pixel has gradient s. Same values as
    `kornia.filters.spatial_gradient`, three to four times as fast on a CPU, where convolutions of one channel are slow.

    Args:
        image: (N, 1, H, W).

    Returns:
        The derivatives along rows and along columns, each (N, 1, H, W).
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    smooth_rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    smooth_columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    across = (smooth_rows[..., 2:] - smooth_rows[..., :-2]) / 8
    down = (smooth_columns[..., 2:, :] - smooth_columns[..., :-2, :]) / 8
    return across, down


def gradient_magnitude(image: Tensor) -> Tensor:
    """Magnitude of the Sobel gradient, sqrt(g_x² + g_y² + 1e-6), with replicated borders.

    Args:
        image: (N, 1, H, W).

    Returns:
        (N, 1, H, W), at least 0.001.
    """
    across, down = sobel(image)
    return torch.sqrt(across * across + down * down + _EPSILON)
