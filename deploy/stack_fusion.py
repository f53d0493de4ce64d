"""Fuses three or more images by a network that fuses two: every two of them, and of these the stronger detail."""

from collections.abc import Callable, Sequence
from itertools import combinations

from torch import Tensor

from ..objectives.laplacian_pyramid import from_pyramid, laplacian_pyramid
from ..objectives.window import gaussian_filter

_TAPS, _SIGMA = 5, 1.0  # of the window in which the strength of a band is measured
_NOISE = 1e-6  # is added to the mean squares of a band, so that what is flat in all fusions is averaged


def fuse_stack(fuse: Callable[[Tensor, Tensor], Tensor], sources: Sequence[Tensor], *, ordered: bool) -> Tensor:
    """Fuse every two sources, and weigh the bands of these fusions in each place by their strength.

    In a Laplacian pyramid, the weight of a fusion is the square of the mean square of its band in a Gaussian window of
    sigma 1, and the weights add up to 1; the bases are averaged. The order of the sources does not matter.

    Args:
        fuse: Maps two images (1, 1, H, W) to the fused one of the same shape.
        sources: Luma of the sources, three or more of shape (1, 1, H, W), in [0, 1].
        ordered: Whether the network takes the darker of two images as its first; or else it fuses them in both orders,
            and the mean counts.

    Returns:
        (1, 1, H, W), not clipped.
    """
    # Of equal means the content decides, so that the order of the sources never does.
    by_brightness = sorted(sources, key=lambda source: (float(source.mean()), source.cpu().numpy().tobytes()))
    total: list[Tensor] = []  # of the weighed bands, and of the bases
    weights: list[Tensor] = []
    for darker, brighter in combinations(by_brightness, 2):
        fused = fuse(darker, brighter)
        if not ordered:
            fused = (fused + fuse(brighter, darker)) / 2
        bands, base = laplacian_pyramid(fused)
        strengths = [(gaussian_filter(band.square(), _TAPS, _SIGMA, "reflect") + _NOISE).square() for band in bands]
        strengths.append(base.new_ones(()))
        levels = [strength * level for strength, level in zip(strengths, [*bands, base], strict=True)]
        total = [one + other for one, other in zip(total, levels, strict=True)] if total else levels
        weights = [one + other for one, other in zip(weights, strengths, strict=True)] if weights else strengths
    *bands, base = (level / weight for level, weight in zip(total, weights, strict=True))
    return from_pyramid(bands, base)
