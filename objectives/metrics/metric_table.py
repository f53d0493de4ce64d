"""The table of all metrics, and the function that computes them."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...runtime.errors import UserError
from ..mef_structure import SMALLEST_SIDE as SMALLEST_SIDE_STRUCTURE
from ..smear import SMALLEST_SIDE as SMALLEST_SIDE_SMEAR
from . import features, fidelity, similarity
from .edges import edge_preservation
from .features import feature_mutual_information
from .fidelity import visual_information_fidelity
from .information import entropy, mutual_information, normalised_mutual_information
from .moments import (
    correlation,
    peak_signal_to_noise_ratio,
    standard_deviation,
    sum_of_correlations_of_differences,
)
from .perception import visible_difference
from .pictures import LEVELS, Pictures
from .sharpness import average_gradient, spatial_frequency
from .similarity import multiscale_structural_similarity, structural_similarity
from .structure import multi_exposure_structure, smears

# Pixels of fused pictures in one chunk: a number that fits into a CPU's cache, and one that keeps a GPU busy. Pictures
# of one pair go into larger chunks, because the saved work on the pair outweighs the cache.
_CPU_PIXELS, _GPU_PIXELS = 2**18, 2**24
_ONE_PAIR_FACTOR = 8
_LARGEST_CHUNK = 64  # pictures, because each joint histogram takes a megabyte


class Metric(NamedTuple):
    """A metric of image fusion.

    Attributes:
        function: Function from fused pictures and their sources to scores, (N,) float64; NaN where it is undefined.
        higher_is_better: Whether a larger score is a better one.
        full_name: Name for people, such as "standard deviation".
        definition: What the number is, in one line.
        sources: How the number of the fused picture takes in both sources, such as "sums over both sources".
        smallest_side: Smallest height and width of a picture in pixels.
        floor: Means below it count as it in ranks, because nobody sees the difference.
        of_stacks: Whether it is defined for more than two sources.

    Example:
        >>> METRICS["Qcv"].higher_is_better, METRICS["VIF"].smallest_side, METRICS["VIF"].sources
        (False, 41, 'sums over both sources')
    """

    function: Callable[[Pictures], Tensor]
    higher_is_better: bool
    full_name: str
    definition: str
    sources: str
    smallest_side: int = 1
    floor: float = -math.inf
    of_stacks: bool = False


_ALONE, _SUM, _MEAN, _WEIGHTED, _BOTH = (
    "of the fused image alone",
    "sums over both sources",
    "means over both sources",
    "weighted means over both sources",
    "against both sources at once",
)

METRICS: dict[str, Metric] = {
    "EN": Metric(
        entropy,
        True,
        "entropy",
        "the information in the grey levels of the fused image, in bits, up to 8",
        _ALONE,
        of_stacks=True,
    ),
    "SD": Metric(
        standard_deviation,
        True,
        "standard deviation",
        "the contrast of the fused image, in grey levels",
        _ALONE,
        of_stacks=True,
    ),
    "SF": Metric(
        spatial_frequency,
        True,
        "spatial frequency",
        "the root mean square of the differences of neighbouring pixels, in grey levels",
        _ALONE,
        2,
        of_stacks=True,
    ),
    "AG": Metric(
        average_gradient,
        True,
        "average gradient",
        "the mean strength of the gradient, in grey levels per pixel",
        _ALONE,
        2,
        of_stacks=True,
    ),
    "MI": Metric(
        mutual_information,
        True,
        "mutual information",
        "what the grey levels of the fused image tell of those of a source, in bits, summed over both",
        _SUM,
    ),
    "SCD": Metric(
        sum_of_correlations_of_differences,
        True,
        "sum of the correlations of differences",
        "the correlation of a source with the fused image minus the other source, summed over both, up to 2",
        _SUM,
    ),
    "VIF": Metric(
        visual_information_fidelity,
        True,
        "visual information fidelity",
        "the share of the visible information of a source that the fused image keeps, summed over both",
        _SUM,
        fidelity.SMALLEST_SIDE,
    ),
    "Qabf": Metric(
        edge_preservation,
        True,
        "edge preservation",
        "the share of the edges of the sources that the fused image keeps, weighted by their strength, up to 0.975",
        _WEIGHTED,
        of_stacks=True,
    ),
    "SSIM": Metric(
        structural_similarity,
        True,
        "structural similarity",
        "the likeness to a source in brightness, contrast and structure, the mean over both, up to 1",
        _MEAN,
        similarity.SMALLEST_SIDE,
    ),
    "CC": Metric(
        correlation,
        True,
        "correlation coefficient",
        "Pearson's correlation with a source, the mean over both, up to 1",
        _MEAN,
    ),
    "PSNR": Metric(
        peak_signal_to_noise_ratio,
        True,
        "peak signal-to-noise ratio",
        "10 log10(255² / the mean of the squared differences to both sources), in dB",
        _MEAN,
    ),
    "MEF-SSIM": Metric(
        multi_exposure_structure,
        True,
        "structure term of MEF-SSIM",
        "the likeness to the best local structure of the sources, the mean of three scales, up to 1",
        _BOTH,
        SMALLEST_SIDE_STRUCTURE,
        of_stacks=True,
    ),
    "smear": Metric(
        smears,
        False,
        "smear",
        "the share of pixels with slow slopes that no source has, in percent; 0 is best",
        _BOTH,
        SMALLEST_SIDE_SMEAR,
        floor=0.02,
        of_stacks=True,
    ),
    "NMI": Metric(
        normalised_mutual_information,
        True,
        "normalised mutual information",
        "the mutual information with a source divided by the mean of the two entropies, summed over both, up to 2",
        _SUM,
    ),
    "MS-SSIM": Metric(
        multiscale_structural_similarity,
        True,
        "multi-scale structural similarity",
        "structural similarity at five scales multiplied, the mean over both sources, up to 1",
        _MEAN,
        similarity.SMALLEST_SIDE_MULTISCALE,
    ),
    "FMI": Metric(
        feature_mutual_information,
        True,
        "feature mutual information",
        "the normalised mutual information of gradients in windows of 3x3 pixels, the mean over both sources, up to 1",
        _MEAN,
        features.SMALLEST_SIDE,
    ),
    "Qcv": Metric(
        visible_difference,
        False,
        "visible difference (Chen-Varshney)",
        "the squared difference to both sources that an eye sees, weighted by how salient a region is; 0 is best",
        _WEIGHTED,
    ),
}
FIELD_METRICS: tuple[str, ...] = tuple(METRICS)[:11]  # the metrics that papers of the field print


@torch.no_grad()
def fusion_metrics(
    fused: Tensor,
    first: Tensor,
    second: Tensor,
    names: Sequence[str] = FIELD_METRICS,
    *,
    further: Sequence[Tensor] = (),
) -> dict[str, Tensor]:
    """Score fused pictures against their sources.

    Everything is computed on the device of the pictures, which must support float64. Metrics share intermediate
    results, and several fused pictures of one pair share those of its sources.

    Args:
        fused: Fused grey pictures as they are saved, (N, 1, H, W), in 0..255: uint8, or float, which is rounded here.
        first: First sources, (N, 1, H, W), or (1, 1, H, W) for several fused pictures of one pair.
        second: Second sources, of the same shape as `first`.
        names: Names of the metrics, keys of `METRICS`.
        further: Third and further sources of stacks, of the same shape as `first`.

    Returns:
        The scores of each metric by its name, (N,) float64; NaN where a metric is undefined (0 / 0), as the correlation
        with a picture of one grey level.

    Raises:
        UserError: If a name is unknown, the pictures are too small for a metric, or it is not defined for so many
            sources.
        ValueError: If shapes, types or values are not as described.

    Example:
        >>> first = torch.full((1, 1, 16, 16), 255.0).tril()
        >>> second = first.mT.contiguous()
        >>> scores = fusion_metrics(torch.cat([first, second]), first, second, ["SD", "CC"])  # two fusions of one pair
        >>> {name: values.round(decimals=1).tolist() for name, values in scores.items()}
        {'SD': [127.3, 127.3], 'CC': [0.1, 0.1]}
    """
    for name in names:
        if name not in METRICS:
            raise UserError(f"unknown metric {name}; known are {', '.join(METRICS)}")
        if further and not METRICS[name].of_stacks:
            known = ", ".join(name for name, metric in METRICS.items() if metric.of_stacks)
            raise UserError(f"{name} is defined for two sources, not for {2 + len(further)}; choose from {known}")
    count, sources = len(fused), len(first)
    alike = all(source.shape == first.shape for source in (second, *further))
    if fused.ndim != 4 or fused.shape[1] != 1 or sources not in (1, count) or not alike:
        raise ValueError(f"not N fused pictures with N pairs or one: {_shapes(fused, first, second, *further)}")
    if first.shape[1:] != fused.shape[1:] or not fused.numel():
        raise ValueError(f"pictures of different or no size: {_shapes(fused, first, second)}")
    height, width = fused.shape[-2:]
    for name in names:
        side = METRICS[name].smallest_side
        if min(height, width) < side:
            raise UserError(
                f"{name} needs pictures of at least {side}x{side} pixels, not {width}x{height}; leave it out"
            )
    fused, *every = map(_levels, (fused, first, second, *further))
    pixels = _CPU_PIXELS if fused.device.type == "cpu" else _GPU_PIXELS
    pixels *= _ONE_PAIR_FACTOR if sources == 1 else 1
    chunk = min(max(1, pixels // (height * width)), _LARGEST_CHUNK)
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        pictures = Pictures(fused[part], *(every if sources == 1 else [source[part] for source in every]))
        for name in names:
            values[name].append(METRICS[name].function(pictures))
    return {name: torch.cat(parts) for name, parts in values.items()}


def _levels(image: Tensor) -> Tensor:
    """Convert a picture to uint8."""
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise ValueError(f"pictures must be uint8 or float, not {image.dtype}")
    low, high = image.aminmax()
    if not (low >= 0 and high <= LEVELS - 1):  # NaN as well
        raise ValueError(f"grey levels must lie in 0..255, not in {low:g}..{high:g}")
    rounded = image.round()
    if high <= 1 and not torch.equal(rounded, image):
        raise ValueError("grey levels must lie in 0..255; these look like 0..1")
    return rounded.to(torch.uint8)


def _shapes(*images: Tensor) -> str:
    return ", ".join(str(tuple(image.shape)) for image in images)
