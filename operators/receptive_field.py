"""The receptive field of a network: the distance from an output pixel to the farthest input that it depends on."""

from collections.abc import Callable, Mapping

from ..genotypes import CellGenotype, Genotype, OperatorName, parse_operator
from .cells import GUIDED_RADII
from .registration import REGISTERED

Interval = tuple[int, int]  # first and last index of pixels along one axis

_PERIOD = 8  # in pixels, of the distance along an axis: the multi-scale cell halves twice, the half stem once
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
    "identity": lambda half, dilation: 0,
}


def receptive_field(genotype: Genotype) -> int | None:
    """Compute the largest distance between an output pixel and its inputs, along rows and along columns.

    Means over the whole image (channel attention, group normalisation, selective-kernel fusion) do not count. A crop
    that starts at a multiple of 8 pixels and exceeds an area by this distance on every side has the output of the whole
    image in the area, if these means are those of the whole image.

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
        for pixel in range(_PERIOD):
            first, last = _inputs((pixel, pixel), cells, 2 if genotype.stem == "half" else 1, known)
            reaches += [pixel - first, last - pixel]
    return max(reaches)


def _inputs(pixels: Interval, cells: list[CellGenotype], shrink: int, radii: Mapping[str, int]) -> Interval:
    """Find the pixels of the input that pixels of the output depend on, layer by layer backwards."""
    pixels = pixels[0] // shrink, pixels[1] // shrink
    pixels = _wider(pixels, 2)  # the two 3x3 convolutions of the head
    for cell in reversed(cells):
        pixels = _through_cell(pixels, cell.kind, sum(radii[name] for name in cell.operators))
    first, last = _wider(pixels, 2)  # the two of the stem
    return shrink * first, shrink * last + shrink - 1


def _through_cell(pixels: Interval, kind: str, radius: int) -> Interval:
    if kind == "successive":
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


def _up(pixels: Interval) -> Interval:
    """Find the pixels at half the size that an up-sampling reads, bilinear or by the transposed convolution."""
    return (pixels[0] - 1) // 2, (pixels[1] + 1) // 2


def _down(pixels: Interval) -> Interval:
    """Find the pixels at twice the size that a down-sampling reads, by a 3x3 convolution and a 3x3 blur of stride 2."""
    return 2 * pixels[0] - 2, 2 * pixels[1] + 2
