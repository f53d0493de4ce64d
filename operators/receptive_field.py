"""How far a network looks: the distance from an output pixel to the farthest input pixel that reaches it."""

from collections.abc import Mapping

from ..genotypes import CellGenotype, Genotype, OperatorName, parse_operator
from .cells import GUIDED_RADII
from .registration import registered_radius

Interval = tuple[int, int]  # first and last index of pixels along one axis

_PERIOD = 8  # phases of the output that can differ: two halvings in the multi-scale cell, one in the half stem
_DETFUSION = 4 + 4  # the 3x3 convolutions of encoder and decoder
_RESIDUAL_RADIUS = 4 + 2 + 2  # of the decomposition cell's residual module: 5x5, 3x3 and 3x3 of dilation 2


def receptive_field(genotype: Genotype) -> int | None:
    """Find how far the inputs of an output pixel lie from it, along rows and columns alike.

    Means over the whole image (channel attention, group normalisation, selective-kernel fusion) are left aside: they
    reach everywhere, but through a handful of numbers. Away from its border, a crop that is larger by this distance on
    every side, and that starts at a multiple of 8, has the output of the whole image where these means are the same.

    Args:
        genotype: The architecture; of a refine network the distance is that of the refining stage alone.

    Returns:
        The distance in pixels, or None for a network with a non-local operator, in which every pixel reaches every
        other, or with a registered one that does not say how far it looks: nothing short of its author tells that.
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
    """Walk from pixels of the output back to the pixels of the input that they depend on."""
    pixels = pixels[0] // shrink, pixels[1] // shrink
    pixels = _wider(pixels, 2)  # the two 3x3 convolutions of the head
    for cell in reversed(cells):
        pixels = _through_cell(pixels, cell.kind, sum(radii[name] for name in cell.operators))
    first, last = _wider(pixels, 2)  # those of the stem
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
    kernel, dilation = operator.kernel or 1, operator.dilation or 1
    half = kernel // 2
    match operator.kind:
        case "dense":
            return 3 * half * dilation
        case "residual":
            return half * dilation + 2
        case "dilated":
            return half * dilation
        case "separable":
            return 2 * half
        case "channel_attention":
            return 1
        case "spatial_attention":
            return half
        case "non_local":
            return None
        case "identity":
            return 0
    return registered_radius(operator)


def _wider(pixels: Interval, radius: int) -> Interval:
    return pixels[0] - radius, pixels[1] + radius


def _up(pixels: Interval) -> Interval:
    """The pixels at half the size that an up-sampling reads, by the bilinear path or the transposed convolution."""
    return (pixels[0] - 1) // 2, (pixels[1] + 1) // 2


def _down(pixels: Interval) -> Interval:
    """The pixels at twice the size that a down-sampling reads: a 3x3 convolution and a 3x3 blur with stride 2."""
    return 2 * pixels[0] - 2, 2 * pixels[1] + 2
