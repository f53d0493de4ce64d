"""The receptive field of a network: the distance from an output pixel to the farthest input that it depends on."""

from collections.abc import Callable, Mapping, Sequence

from ..genotypes import CellGenotype, Genotype, OperatorName, parse_operator
from .cells import GUIDED_RADII, size_multiple
from .registration import REGISTERED

Interval = tuple[int, int]  # first and last index of pixels along one axis

_DETFUSION = 4 + 4  # the 3x3 convolutions of encoder and decoder
_RESIDUAL_RADIUS = 4 + 2 + 2  # of the decomposition cell's residual module: 5x5, 3x3 and 3x3 of dilation 2

# Radius of each kind of operator, by half the kernel and dilation.
_RADII: dict[str, Callable[[int, int], int | None]] = {
    "dense": lambda half, dilation: 3 * half * dilation,
    "residual": lambda half, dilation: half * dilation + 2,
    "dilated": lambda half, dilation: half * dilation,
    "separable": lambda half, dilation: 2 * half,
    "channel_attention": lambda half, dilation: 1,
    "spatial_attention": lambda half, dilation: half,
    "non_local": lambda half, dilation: None,
    "plain": lambda half, dilation: half,
    "inverted": lambda half, dilation: half,
    "identity": lambda half, dilation: 0,
}


def receptive_field(genotype: Genotype) -> int | None:
    """Compute the largest distance between an output pixel and its inputs, along rows and along columns.

    Means over the whole image (channel attention, group normalisation, selective-kernel fusion) do not count. A crop
    that starts at a multiple of the network's `multiple` pixels and exceeds an area by this distance on every side has
    the output of the whole image in the area, if these means are those of the whole image.

    Returns:
        The distance in pixels; None for a network with a non-local operator, or with a registered one without radius.

    Example:
        >>> from timfuse.genotypes import load_genotype
        >>> receptive_field(load_genotype("tim_light"))
        12
    """
    if genotype.network == "detfusion":
        return _DETFUSION
    radii = {name: _radius(parse_operator(name)) for cell in genotype.cells for name in cell.operators}
    known = {name: radius for name, radius in radii.items() if radius is not None}
    if len(known) < len(radii):
        return None
    branches = [[cell for cell in genotype.cells if cell.source == source] for source in (None, "first", "second")]
    reaches = []
    for cells in filter(None, branches):
        halvings = _halvings(genotype)
        for pixel in range(size_multiple(halvings, [(cell.level, cell.kind) for cell in cells])):
            if genotype.network == "pyramid":
                first, last = _pyramid_inputs((pixel, pixel), cells, genotype.widths, known)
            else:
                first, last = _inputs((pixel, pixel), cells, 2**halvings, known)
            reaches += [pixel - first, last - pixel]
    return max(reaches)


def beyond_crops(genotype: Genotype, crop: int) -> str | None:
    """Say that a network sees farther than the crops of its training are large; return None if it does not.

    Such a network learns from the borders of its crops, of which whole images have few, and may fail on these
    (`benchmarks/results/search-quality.md`).

    Args:
        crop: Height and width of the crops in pixels.

    Example:
        >>> from timfuse.genotypes import load_genotype
        >>> beyond_crops(load_genotype("ivif"), 64).partition(";")[2]
        ' raise data.crop'
    """
    radius = receptive_field(genotype)
    if radius is None or radius <= crop:
        return None
    return (
        f"{genotype.name} sees {radius} pixels far, beyond the crops of {crop}: it learns from their borders, and may"
        " fail on whole images; raise data.crop"
    )


def _halvings(genotype: Genotype) -> int:
    """Count how often a network halves the height and width, not counting the inside of its cells."""
    if isinstance(genotype.channels, tuple):
        return len(genotype.channels)
    return 1 if genotype.stem == "half" else 0


def _inputs(pixels: Interval, cells: list[CellGenotype], shrink: int, radii: Mapping[str, int]) -> Interval:
    """Find the pixels of the input that pixels of the output depend on, layer by layer backwards."""
    pixels = pixels[0] // shrink, pixels[1] // shrink
    pixels = _wider(pixels, 2)  # the two 3x3 convolutions of the head
    for cell in reversed(cells):
        pixels = _through_cell(pixels, cell.kind, sum(radii[name] for name in cell.operators))
    first, last = _wider(pixels, 2)  # the two of the stem
    return shrink * first, shrink * last + shrink - 1


def _pyramid_inputs(
    pixels: Interval, cells: list[CellGenotype], widths: Sequence[int], radii: Mapping[str, int]
) -> Interval:
    """Find the pixels of the input that pixels of the output of a pyramid network depend on."""
    featureless = widths.count(0)  # the finest levels
    levels = len(widths) - featureless
    means = [pixels]  # at each size, of the sources
    features: list[Interval] = []  # of each level that has some, as its head reads them
    for level in range(len(widths)):
        if level >= featureless:
            features.append(_wider(_halved(means[-1]), 1))
        means.append(_up(means[-1]))
    features[-1] = _both(features[-1], _wider(means[-1], 1))  # the head of the base
    for level in range(levels):
        for cell in reversed([cell for cell in cells if cell.level == featureless + level]):
            features[level] = _through_cell(features[level], cell.kind, sum(radii[name] for name in cell.operators))
        if level + 1 < levels:
            features[level + 1] = _both(features[level + 1], _halved(features[level]))
    for level in reversed(range(1, levels)):
        first, last = features[level]
        features[level - 1] = _both(features[level - 1], (2 * first - 1, 2 * last + 1))
        means[featureless + level + 1] = _both(means[featureless + level + 1], _wider(features[level], 1))
    first, last = _wider(features[0], 1)
    means[featureless] = _both(means[featureless], (2 * first, 2 * last + 1))
    reached = [(2**size * first, 2**size * last + 2**size - 1) for size, (first, last) in enumerate(means)]
    return min(first for first, _ in reached), max(last for _, last in reached)


def _through_cell(pixels: Interval, kind: str, radius: int) -> Interval:
    if kind in ("successive", "stage"):
        return _wider(pixels, radius)
    if kind == "decomposition":
        # A guided filter averages twice.
        return _wider(pixels, 2 * max(GUIDED_RADII) + radius + _RESIDUAL_RADIUS)
    half = _down(_wider(_up(pixels), radius))
    quarter = _down(_down(_wider(_up(_up(pixels)), radius)))
    full = _wider(pixels, radius)
    return min(full[0], half[0], quarter[0]), max(full[1], half[1], quarter[1])


def _radius(operator: OperatorName) -> int | None:
    if operator.kind in _RADII:
        return _RADII[operator.kind]((operator.kernel or 1) // 2, operator.dilation or 1)
    return REGISTERED[operator.kind].radius


def _wider(pixels: Interval, radius: int) -> Interval:
    return pixels[0] - radius, pixels[1] + radius


def _both(one: Interval, other: Interval) -> Interval:
    return min(one[0], other[0]), max(one[1], other[1])


def _halved(pixels: Interval) -> Interval:
    """Find the pixels at half the size in which pixels lie."""
    return pixels[0] // 2, pixels[1] // 2


def _up(pixels: Interval) -> Interval:
    """Find the pixels at half the size that an up-sampling reads, bilinear or by the transposed convolution."""
    return (pixels[0] - 1) // 2, (pixels[1] + 1) // 2


def _down(pixels: Interval) -> Interval:
    """Find the pixels at twice the size that a down-sampling reads, by a 3x3 convolution and a 3x3 blur of stride 2."""
    return 2 * pixels[0] - 2, 2 * pixels[1] + 2
