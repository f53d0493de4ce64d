"""Metrics made of means, variances and correlations over whole pictures, all taken from their histograms.

Sums of grey levels, of their squares and products are whole numbers that float64 holds exactly, whence a flat picture
has a variance of exactly 0.
"""

import torch
from torch import Tensor

from .pictures import LEVELS, MIDDLE, Pictures


def standard_deviation(pictures: Pictures) -> Tensor:
    """Population standard deviation of the fused picture.

    Args:
        pictures: The fused pictures and their sources.

    Returns:
        (N,) grey levels.
    """
    fused, squares = _sums(pictures.fused_histogram)
    return _covariance(pictures.pixels, squares, fused, fused)[0].sqrt() / pictures.pixels


def correlation(pictures: Pictures) -> Tensor:
    """Mean of the fused picture's Pearson correlations with both sources; that with a flat picture counts 0.

    Args:
        pictures: The fused pictures and their sources.

    Returns:
        (N,), -1 to 1.
    """
    fused, fused_squares = _sums(pictures.fused_histogram)
    sources, source_squares = _sums(pictures.source_histogram)
    pixels = pictures.pixels
    return _correlation(
        _covariance(pixels, _product_sums(pictures.joint_histogram), fused, sources),
        _covariance(pixels, fused_squares, fused, fused),
        _covariance(pixels, source_squares, sources, sources),
    ).mean(0)


def sum_of_correlations_of_differences(pictures: Pictures) -> Tensor:
    """How much of each source is in what the other does not explain, corr(F - B, A) + corr(F - A, B).

    Aslantas and Bendes, "A new image quality metric for image fusion: the sum of the correlations of differences",
    AEU 2015. A correlation with something flat counts 0.

    Args:
        pictures: The fused pictures and their sources.

    Returns:
        (N,), -2 to 2.
    """
    fused, fused_squares = _sums(pictures.fused_histogram)
    sources, source_squares = _sums(pictures.source_histogram)
    products = _product_sums(pictures.joint_histogram)  # (2, N)
    # The sums of the difference pictures F - B and F - A, (2, N).
    difference = fused - sources.flip(0)
    squares = fused_squares - 2 * products.flip(0) + source_squares.flip(0)
    by_source = products - _product_sums(pictures.source_joint_histogram)
    pixels = pictures.pixels
    return _correlation(
        _covariance(pixels, by_source, difference, sources),
        _covariance(pixels, squares, difference, difference),
        _covariance(pixels, source_squares, sources, sources),
    ).sum(0)


def peak_signal_to_noise_ratio(pictures: Pictures) -> Tensor:
    """10 log10(255² / MSE), MSE the mean of the squared errors towards both sources.

    Args:
        pictures: The fused pictures and their sources.

    Returns:
        (N,) dB, infinite where the fused picture and both sources are equal.
    """
    _, fused_squares = _sums(pictures.fused_histogram)
    _, source_squares = _sums(pictures.source_histogram)
    errors = fused_squares - 2 * _product_sums(pictures.joint_histogram) + source_squares  # (2, N)
    return 10 * (255**2 / (errors.mean(0) / pictures.pixels)).log10()


def _levels(histogram: Tensor) -> Tensor:
    return torch.arange(LEVELS, dtype=torch.float64, device=histogram.device) - MIDDLE


def _sums(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the pixels of the levels minus 128 and of their squares, from (..., 256)."""
    levels = _levels(histogram)
    return histogram @ levels, histogram @ levels.square()


def _product_sums(joint_histogram: Tensor) -> Tensor:
    """Sum over the pixels of the product of both levels minus 128, from (..., 256, 256)."""
    levels = _levels(joint_histogram)
    return joint_histogram @ levels @ levels


def _covariance(pixels: int, products: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Covariance times the squared number of pixels, from the sums of xy, x and y; exactly 0 for a flat picture."""
    return pixels * products - x * y


def _correlation(covariance: Tensor, variance_x: Tensor, variance_y: Tensor) -> Tensor:
    scale = (variance_x * variance_y).clamp(min=0).sqrt()
    return (covariance / scale).where(scale > 0, 0.0)
