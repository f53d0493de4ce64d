"""Metrics of the fused picture's detail alone."""

import math

import torch
from torch import Tensor

from .pictures import Pictures


def spatial_frequency(pictures: Pictures) -> Tensor:
    """sqrt(mean squared difference of horizontal neighbours + the same of vertical ones).

    Eskicioglu and Fisher, "Image quality measures and their performance", IEEE Transactions on Communications 1995.

    Args:
        pictures: The fused pictures and their sources.

    Returns:
        (N,) grey levels.
    """
    fused = pictures.fused[0].float()  # whole numbers: the differences and their squares are exact
    across = fused.diff(dim=-1).square_().mean((-2, -1), dtype=torch.float64)
    down = fused.diff(dim=-2).square_().mean((-2, -1), dtype=torch.float64)
    return (across + down).sqrt()


def average_gradient(pictures: Pictures) -> Tensor:
    """Mean of sqrt((g_x² + g_y²) / 2), with central differences, at the border one-sided ones.

    Args:
        pictures: The fused pictures and their sources.

    Returns:
        (N,) grey levels per pixel.
    """
    down, across = torch.gradient(pictures.fused[0].float(), dim=(-2, -1))
    return torch.hypot(down, across).mean((-2, -1), dtype=torch.float64) / math.sqrt(2)
