"""Metrics of histograms: entropy and mutual information."""

import math

from torch import Tensor

from .pictures import Pictures


def entropy(pictures: Pictures) -> Tensor:
    """Compute EN, the entropy of the fused picture's histogram of 256 grey levels.

    Returns:
        (N,) bits, 0 to 8.
    """
    return _entropy(pictures.fused_histogram, pictures.pixels)[0]


def mutual_information(pictures: Pictures) -> Tensor:
    """Compute MI, the mutual information of the fused picture with both sources, I(F, A) + I(F, B).

    Returns:
        (N,) bits, 0 to 16.

    References:
        Qu, Zhang and Yan, "Information measure for performance of image fusion" (Electronics Letters 2002).
    """
    shared, _ = _mutual_information(pictures)
    return shared.sum(0)


def normalised_mutual_information(pictures: Pictures) -> Tensor:
    """Compute NMI = 2 I(F, A) / (H(F) + H(A)) + 2 I(F, B) / (H(F) + H(B)).

    Returns:
        (N,), 0 to 2; NaN if the fused picture and a source are flat.

    References:
        Hossny, Nahavandi and Creighton, "Comments on 'Information measure for performance of image fusion'"
        (Electronics Letters 2008).
    """
    shared, single = _mutual_information(pictures)
    terms = 2 * shared / single
    return terms.masked_fill(pictures.flat_fused & pictures.flat_sources, math.nan).sum(0)


def _mutual_information(pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Compute I(F, S) and H(F) + H(S) for both sources S, (2, N) bits each."""
    fused = _entropy(pictures.fused_histogram, pictures.pixels)
    single = fused + _entropy(pictures.source_histogram, pictures.pixels)
    joint = _entropy(pictures.joint_histogram.flatten(-2), pictures.pixels)
    return (single - joint).clamp(min=0), single


def _entropy(histogram: Tensor, pixels: int) -> Tensor:
    """Compute the entropy of histograms in bits, (..., L) to (...)."""
    counts = histogram.clamp(min=1)  # c log c is 0 for a count of 0 as for a count of 1
    return (math.log2(pixels) - (counts * counts.log2()).sum(-1) / pixels).clamp(min=0)
