"""Metrics of means, variances and correlations over whole pictures, all computed from histograms.

Sums of grey levels, of their squares and of their products are whole numbers, which float64 holds exactly. A flat
picture therefore has a variance of exactly 0.
"""

import math

import torch
from torch import Tensor

from .pictures import LEVELS, MIDDLE, Pictures


def standard_deviation(pictures: Pictures) -> Tensor:
    """Compute SD, the population standard deviation of the fused picture, (N,) in grey levels."""
    fused, squares = _sums(pictures.fused_histogram)
    return _covariance(pictures.pixels, squares, fused, fused)[0].sqrt() / pictures.pixels


def correlation(pictures: Pictures) -> Tensor:
    """Compute CC, the mean of the fused picture's Pearson correlations with both sources.

    Returns:
        (N,), -1 to 1; NaN if the fused picture or a source is flat.
    """
    fused, fused_squares = _sums(pictures.fused_histogram)
    sources, source_squares = _sums(pictures.source_histogram)
    pixels = pictures.pixels
    correlations = _correlation(
        _covariance(pixels, _product_sums(pictures.joint_histogram), fused, sources),
        _covariance(pixels, fused_squares, fused, fused),
        _covariance(pixels, source_squares, sources, sources),
    )
    return correlations.masked_fill(pictures.flat_fused | pictures.flat_sources, math.nan).mean(0)


def sum_of_correlations_of_differences(pictures: Pictures) -> Tensor:
    """Compute SCD = corr(F - B, A) + corr(F - A, B).

    The correlation with a flat difference counts 0, as that of a copied source has to.

    Returns:
        (N,), -2 to 2; NaN if a source is flat.

    References:
        Aslantas and Bendes, "A new image quality metric for image fusion: the sum of the correlations of differences"
        (AEÜ 2015).
    """
    fused, fused_squares = _sums(pictures.fused_histogram)
    sources, source_squares = _sums(pictures.source_histogram)
    products = _product_sums(pictures.joint_histogram)  # (2, N)
    # The sums of the difference pictures F - B and F - A, (2, N).
    difference = fused - sources.flip(0)
    squares = fused_squares - 2 * products.flip(0) + source_squares.flip(0)
    by_source = products - _product_sums(pictures.source_joint_histogram)
    pixels = pictures.pixels
    correlations = _correlation(
        _covariance(pixels, by_source, difference, sources),
        _covariance(pixels, squares, difference, difference),
        _covariance(pixels, source_squares, sources, sources),
    )
    return correlations.masked_fill(pictures.flat_sources, math.nan).sum(0)


def peak_signal_to_noise_ratio(pictures: Pictures) -> Tensor:
    """Compute PSNR = 10 log10(255² / MSE), with MSE the mean of the squared errors towards both sources.

    Returns:
        (N,) dB, infinite if the fused picture equals both sources.
    """
    _, fused_squares = _sums(pictures.fused_histogram)
    _, source_squares = _sums(pictures.source_histogram)
    errors = fused_squares - 2 * _product_sums(pictures.joint_histogram) + source_squares  # (2, N)
    return 10 * (255**2 / (errors.mean(0) / pictures.pixels)).log10()


def _levels(histogram: Tensor) -> Tensor:
    return torch.arange(LEVELS, dtype=torch.float64, device=histogram.device) - MIDDLE


def _sums(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the levels minus 128, and their squares, over the pixels of histograms (..., 256)."""
    levels = _levels(histogram)
    return histogram @ levels, histogram @ levels.square()


def _product_sums(joint_histogram: Tensor) -> Tensor:
    """Sum the products of both levels minus 128 over the pixels of joint histograms (..., 256, 256)."""
    levels = _levels(joint_histogram)
    return joint_histogram @ levels @ levels


def _covariance(pixels: int, products: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Compute the covariance times the squared number of pixels, from the sums of xy, x and y."""
    return pixels * products - x * y


def _correlation(covariance: Tensor, variance_x: Tensor, variance_y: Tensor) -> Tensor:
    scale = (variance_x * variance_y).clamp(min=0).sqrt()
    return (covariance / scale).where(scale > 0, 0.0)
