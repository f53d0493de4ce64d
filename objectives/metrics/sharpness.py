"""Metrics of the detail in the fused picture alone."""

import math

import torch
from torch import Tensor

from .pictures import Pictures


def spatial_frequency(pictures: Pictures) -> Tensor:
    """Compute SF, the root of the mean squared differences of horizontal plus those of vertical neighbours.

    Returns:
        (N,) grey levels.

    References:
        Eskicioglu and Fisher, "Image quality measures and their performance" (IEEE Transactions on Communications
        1995).
    """
    fused = pictures.fused[0].float()  # whole numbers: the differences and their squares are exact
    across = fused.diff(dim=-1).square_().mean((-2, -1), dtype=torch.float64)
    down = fused.diff(dim=-2).square_().mean((-2, -1), dtype=torch.float64)
    return (across + down).sqrt()


def average_gradient(pictures: Pictures) -> Tensor:
    """Compute AG, the mean of sqrt((g_x² + g_y²) / 2), with central differences, one-sided at the border.

    Returns:
        (N,) grey levels per pixel.
    """
    down, across = torch.gradient(pictures.fused[0].float(), dim=(-2, -1))
    return torch.hypot(down, across).mean((-2, -1), dtype=torch.float64) / math.sqrt(2)
