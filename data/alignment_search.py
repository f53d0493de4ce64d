"""Estimation of the transform between two cameras from the edges of their images."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..genotypes.choices import check_choice
from ..runtime.errors import UserError
from .alignment import MODELS, Alignment, Frame
from .edge_agreement import agreement, agreement_by_shift, blurred, edge_maps, take_peak
from .images import Pixels, luma, unit_range

_SMALLEST = 32  # height and width of images, in pixels
_SIDE = 640  # largest height or width of the images whose edges are taken; below, those of maps in pixels
_COARSE, _JUDGED = 96, 160
_LEVELS = ((160, 4, 20), (320, 8, 10), (640, 8, 10))  # with the free parameters, and the steps
_SCALES = tuple(math.exp(0.06 * step) for step in range(-12, 13))  # of the fields of view, 0.49 to 2.05
_TURNS = tuple(math.radians(4 * step) for step in range(-2, 3))
_SHARE, _LEAST_SHARE = 0.4, 0.2  # of the smaller image that is common, at the start of the search and at its end
_CANDIDATES, _EACH = 5, 2  # positions that are refined, and those of one scale and turn among them
_APART = 3  # pixels between two of these
_PRIOR = 100.0  # of squared shear and perspective, in units of the agreement, for a single pair
# Of 31 single training pairs 29 have 0.455 or more; pairs of two scenes have up to 0.27, rendered ones up to 0.44.
_LEAST_CONFIDENCE = 0.45
_NEAR = 0.04  # of the side: shifts that differ less are taken for one
_JUDGED_SHARE = 0.5  # of the common part, which other shifts leave

Maps = tuple[Tensor, Tensor]
"""Edge maps of the first and of the second images."""


def find_alignment(pairs: Sequence[tuple[Pixels, Pixels]], model: str = "homography") -> Alignment:
    """Find the transform between two cameras by which the edges of their images agree best.

    The measure is the mean correlation of the edge maps of all pairs (see `edge_maps`) over their common part, the
    criterion of Evangelidis and Psarakis ("Parametric Image Alignment Using Enhanced Correlation Coefficient
    Maximization", TPAMI 2008). All shifts are tried for a grid of scales and turns, by the Fourier transform at a low
    resolution; L-BFGS improves the best of them, and then the whole model at a higher one. The fields of view may
    differ by a factor of 2, and the turn be 10 degrees. A prior on shear and perspective, which counts less the more
    pairs there are, keeps them small where few edges tell.

    The confidence is 1 - b / a, where a is the agreement that was found, and b the best one if the warped images are
    shifted by more than 4 % of their size. For pairs of two different scenes it is about 0.

    Args:
        pairs: Both images of each pair, of the same sizes in all pairs, (H, W) or (H, W, 3), uint8 or uint16. The more
            pairs, the better: a single one has edges in a few places, and at few distances.
        model: The kind of transform, a key of `MODELS`.

    Raises:
        UserError: If there is no such model, the pairs differ in size, a translation is to join images of two sizes, or
            the confidence is less than 0.45.

    Example:
        >>> from timfuse.data import make_scene
        >>> scene = make_scene(0, height=128, width=160)
        >>> pair = scene.first[:, 5:], scene.second[:, :-5]
        >>> find_alignment([pair], "translation").apply(*pair)[0].shape[1]
        150
    """
    check_choice("model", model, MODELS)
    first, second = zip(*pairs, strict=True)
    frames = _frame_of(first), _frame_of(second)
    if min(*frames[0], *frames[1]) < _SMALLEST:
        raise UserError(f"images that are aligned need at least {_SMALLEST}x{_SMALLEST} pixels")
    if model == "translation" and frames[0] != frames[1]:
        raise UserError("a translation is between images of one size; choose the model similarity")
    parameters, maps = _search((first, second), model)
    confidence = _confidence(maps, parameters)
    if confidence < _LEAST_CONFIDENCE:
        raise UserError(
            f"by no transform do the edges of the images agree much better than by others (confidence {confidence:.2f},"
            f" {_LEAST_CONFIDENCE} is needed); take more pairs, or pairs with more structure that both images show"
        )
    units = [_in_half_widths(frame) for frame in frames]
    matrix = np.linalg.inv(units[1]) @ _transform(parameters).double().numpy() @ units[0]
    rows = tuple(tuple(row) for row in (matrix / matrix[2, 2]).tolist())
    return Alignment(model, frames[0], frames[1], rows, round(confidence, 3))


def _frame_of(images: Sequence[Pixels]) -> Frame:
    """Return width and height of all images of a source."""
    sizes = sorted({(image.shape[1], image.shape[0]) for image in images})
    if len(sizes) > 1:
        some = " and ".join(f"{width}x{height}" for width, height in sizes[:2])
        raise UserError(f"one transform is for images of one size, these have {some}; align each pair by itself")
    return sizes[0]


def _in_half_widths(frame: Frame) -> NDArray[np.float64]:
    """Return the matrix that takes pixels to half widths from the centre."""
    width, height = frame
    return np.array([[2, 0, 1 - width], [0, 2, 1 - height], [0, 0, width]]) / width


def _transform(parameters: Tensor) -> Tensor:
    """Make the 3x3 matrix of shift, scale and turn, shear, and perspective; of fewer parameters, the others are 0."""
    x, y, scale, turn, stretch, shear, across, down = F.pad(parameters, (0, 8 - len(parameters)))
    rows = [1 + scale + stretch, shear - turn, x, shear + turn, 1 + scale - stretch, y, across, down, torch.ones(())]
    return torch.stack(rows).view(3, 3)


def _search(images: tuple[Sequence[Pixels], Sequence[Pixels]], model: str) -> tuple[Tensor, Maps]:
    """Find the parameters of the transform from first to second images, in half the widths of both from the centres.

    Returns:
        The parameters, and the maps at the last resolution.
    """
    count = MODELS[model]
    frames = [_frame_of(side) for side in images]
    side = min(_SIDE, *map(max, frames))
    maps = _maps_of_both(images, [width * side / max(width, height) for width, height in frames])
    coarse = _pooled(maps, max(1, round(side / _COARSE)), 0.7)
    single = model == "translation"
    candidates = _candidates(coarse, (1.0,) if single else _SCALES, (0.0,) if single else _TURNS)
    refined = [_refined(coarse, each.parameters, min(count, 4), 0, 12) for each in candidates]
    with torch.no_grad():
        best = max(refined, key=lambda parameters: float(_agreement(coarse, parameters)))
    # Both images get as many pixels for one part of the scene as the image that has fewer of them.
    scale = math.hypot(1 + float(best[2]), float(best[3]))
    widths = [width * min(1, _SIDE / max(width, height)) for width, height in frames]
    width = min(widths[0], widths[1] * scale)
    maps = _maps_of_both(images, [width, width / scale])
    side = min(max(each.shape[2:]) for each in maps)
    for pixels, free, steps in _LEVELS:
        level = _pooled(maps, max(1, round(side / pixels)), 1.0)
        start = F.pad(best, (0, max(0, min(count, free) - len(best))))
        best = _refined(level, start, min(count, free), _PRIOR / len(images[0]), steps)
    return best, level


def _maps_of_both(images: tuple[Sequence[Pixels], Sequence[Pixels]], widths: Sequence[float]) -> Maps:
    """Compute the edge maps of the images of both sources at two widths in pixels."""
    return edge_maps_of(images[0], widths[0]), edge_maps_of(images[1], widths[1])


def edge_maps_of(images: Sequence[Pixels], width: float) -> Tensor:
    """Compute the edge maps of images of one size, which are resized to a width in pixels first.

    Args:
        images: Pixels (H, W) or (H, W, 3) of each image, uint8 or uint16.

    Returns:
        The maps of all images, see `edge_maps`.
    """
    stack = torch.from_numpy(np.stack([unit_range(luma(image)) for image in images]))[:, None]
    size = max(1, round(stack.shape[2] * width / stack.shape[3])), max(1, round(width))
    return edge_maps(F.interpolate(stack, size, mode="bilinear", antialias=True))


def _pooled(maps: Maps, factor: int, sigma: float) -> Maps:
    """Reduce maps by a factor, after a blur by a Gaussian of so many of the new pixels."""
    first, second = (F.avg_pool2d(blurred(each, sigma * factor), factor) for each in maps)
    return first, second


def _sampled(maps: Tensor, transform: Tensor, frame: Frame, unit: float) -> Tensor:
    """Sample second maps at the pixels of a frame, whose coordinates count from its centre in so many pixels.

    Returns:
        Maps and weights in the frame; outside of the second images, the weights are 0.
    """
    count, _, height, width = maps.shape
    across, down = ((torch.arange(length) - (length - 1) / 2) / unit for length in frame)
    y, x = torch.meshgrid(down, across, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1) @ transform.T
    grid = points[..., :2] / points[..., 2:] * torch.tensor([1, width / height])
    return F.grid_sample(maps, grid.expand(count, -1, -1, -1), align_corners=False)


def _agreement(maps: Maps, parameters: Tensor) -> Tensor:
    """Compute the mean agreement of pairs of maps under a transform."""
    first, second = maps
    height, width = first.shape[2:]
    return agreement(first, _sampled(second, _transform(parameters), (width, height), width / 2)).mean()


class _Candidate(NamedTuple):
    agreement: float
    parameters: Tensor  # of shift, scale and turn


def _candidates(maps: Maps, scales: Sequence[float], turns: Sequence[float]) -> list[_Candidate]:
    """Find the shifts, scales and turns with the best agreement among all of a grid."""
    first, second = maps
    height, width = first.shape[2:]
    found: list[_Candidate] = []
    for scale in scales:
        # The whole second image in pixels of the first, with some room to turn.
        across = 1.1 * width / scale
        frame = round(across), round(across * second.shape[2] / second.shape[3])
        for turn in turns:
            cosine, sine = scale * math.cos(turn), scale * math.sin(turn)
            rotation = _transform(torch.tensor([0, 0, cosine - 1, sine]))
            shifts = agreement_by_shift(first, _sampled(second, rotation, frame, width / 2), _SHARE)
            for _ in range(_EACH):
                peak = take_peak(shifts, (height, width), _APART)
                # The centre of the second image from that of the first, in half its width.
                centre = torch.tensor([2 * peak.right + frame[0] - width, 2 * peak.down + frame[1] - height]) / width
                x, y = (-rotation[:2, :2] @ centre).tolist()
                found.append(_Candidate(peak.agreement, torch.tensor([x, y, cosine - 1, sine])))
    return sorted(found, key=lambda candidate: -candidate.agreement)[:_CANDIDATES]


def _refined(maps: Maps, start: Tensor, count: int, prior: float, steps: int) -> Tensor:
    """Improve the first parameters of a transform by L-BFGS on the agreement."""
    free, rest = start[:count].clone().requires_grad_(), start[count:]
    optimiser = torch.optim.LBFGS([free], max_iter=steps, tolerance_change=1e-7, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = prior * free[4:].square().sum() - _agreement(maps, torch.cat([free, rest]))
        value.backward()
        return value

    optimiser.step(loss)
    return torch.cat([free.detach(), rest])


def _confidence(maps: Maps, parameters: Tensor) -> float:
    """Compare the agreement under a transform with that of other shifts; see `find_alignment`."""
    first, second = maps
    height, width = first.shape[2:]
    with torch.no_grad():
        sampled = _sampled(second, _transform(parameters), (width, height), width / 2)
        areas = [
            float((each[:, -1] * other).sum()) for each, other in ((first, sampled[:, -1]), (first, 1), (second, 1))
        ]
        if areas[0] < _LEAST_SHARE * min(areas[1:]):
            return 0.0
        factor = max(1, round(max(height, width) / _JUDGED))
        first, sampled = F.avg_pool2d(first, factor), F.avg_pool2d(sampled, factor)
        shifts = agreement_by_shift(first, sampled, _JUDGED_SHARE)
        near = round(_NEAR * max(first.shape[2:]))
        peak = take_peak(shifts, (first.shape[2], first.shape[3]), near)
    return peak.lead if max(abs(peak.right), abs(peak.down)) <= near else 0.0
