"""Metrics made of histograms: how much a fused picture tells, and how much of it about its sources."""

import math

from torch import Tensor

from .pictures import Pictures


def entropy(pictures: Pictures) -> Tensor:
    """Entropy of the fused picture's histogram of 256 grey levels.

    Args:
        pictures: The fused pictures and their sources.

    Returns:
        (N,) bits, 0 to 8.
    """
    return _entropy(pictures.fused_histogram, pictures.pixels)[0]


def mutual_information(pictures: Pictures) -> Tensor:
    """Mutual information of the fused picture with both sources, I(F, A) + I(F, B), of joint histograms.

    Qu, Zhang and Yan, "Information measure for performance of image fusion", Electronics Letters 2002.

    Args:
        pictures: The fused pictures and their sources.

    Returns:
        (N,) bits, 0 to 16.
    """
    shared, _ = _mutual_information(pictures)
    return shared.sum(0)


def normalised_mutual_information(pictures: Pictures) -> Tensor:
    """Mutual information in units of the entropies, 2 I(F, A) / (H(F) + H(A)) + 2 I(F, B) / (H(F) + H(B)).

    Hossny, Nahavandi and Creighton, "Comments on 'Information measure for performance of image fusion'",
    Electronics Letters 2008. A term of two flat pictures counts 0.

    Args:
        pictures: The fused pictures and their sources.

    Returns:
        (N,), 0 to 2.
    """
    shared, single = _mutual_information(pictures)
    # Where both are flat the numerator is 0 as well; any other entropy is far above this bound.
    return (2 * shared / single.clamp(min=1e-12)).sum(0)


def _mutual_information(pictures: Pictures) -> tuple[Tensor, Tensor]:
    """I(F, S) and H(F) + H(S) for both sources, (2, N) bits each."""
    fused = _entropy(pictures.fused_histogram, pictures.pixels)
    single = fused + _entropy(pictures.source_histogram, pictures.pixels)
    joint = _entropy(pictures.joint_histogram.flatten(-2), pictures.pixels)
    return (single - joint).clamp(min=0), single


def _entropy(histogram: Tensor, pixels: int) -> Tensor:
    """Entropy of histograms in bits, (..., L) to (...)."""
    counts = histogram.clamp(min=1)  # c log c is 0 for counts of both nought and one
    return (math.log2(pixels) - (counts * counts.log2()).sum(-1) / pixels).clamp(min=0)
