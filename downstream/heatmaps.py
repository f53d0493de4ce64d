"""Heat maps of a detector: targets from boxes, the losses, and the peaks that become objects."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.pair_batch import Objects
from .task_network import Detections

_CORE = 0.54  # fraction of a box's width and height that its bump covers and that learns its sides (TTFNet)


class Targets(NamedTuple):
    """The maps that a detector should compute for a batch.

    Attributes:
        heat: Bumps of height 1 at the centres of the objects of each class, (N, C, h, w) in [0, 1].
        sides: Distances in pixels from each cell's centre to left, top, right and bottom of its object, (N, 4, h, w);
            0 where a cell belongs to no object.
        weight: Weight of each cell in the loss of the sides, (N, h, w); the cells of an object sum to 1.
        number: Number of objects in the batch, a scalar of at least 1.
    """

    heat: Tensor
    sides: Tensor
    weight: Tensor
    number: Tensor


def make_targets(objects: Sequence[Objects], classes: int, height: int, width: int, stride: int) -> Targets:
    """Turn the boxes of a batch into maps, all boxes at once.

    A box becomes a Gaussian bump that is as wide and high as the box and has its peak in the cell with the box's
    centre. The cells under the middle of the bump learn the sides of the box. Where boxes overlap, a cell learns the
    smallest one; but the cell of a peak, from which a box is read, always learns that box.

    Source: Zhou et al., "Objects as Points" (arXiv 1904.07850); widths and weights follow Liu et al., "Training-Time-
    Friendly Network for Real-Time Object Detection" (arXiv 1909.00700).

    Args:
        stride: Height and width of a cell in pixels.
    """
    most = max(1, max(len(each.classes) for each in objects))
    boxes = torch.stack([F.pad(each.boxes, (0, 0, 0, most - len(each.classes))) for each in objects])  # (N, K, 4)
    kinds = torch.stack([F.pad(each.classes, (0, most - len(each.classes)), value=-1) for each in objects])  # (N, K)
    known = kinds >= 0
    device, dtype = boxes.device, boxes.dtype
    rows = (torch.arange(height, device=device, dtype=dtype) + 0.5) * stride  # centres of the cells, in pixels
    columns = (torch.arange(width, device=device, dtype=dtype) + 0.5) * stride

    left, top, right, bottom = boxes.unbind(-1)  # each (N, K)
    # The peak lies on the centre of a cell, so that the focal loss has a positive there.
    x = (((left + right) / 2 / stride).floor().clamp(0, width - 1) + 0.5) * stride
    y = (((top + bottom) / 2 / stride).floor().clamp(0, height - 1) + 0.5) * stride
    across = columns - x[..., None]  # (N, K, w)
    down = rows - y[..., None]  # (N, K, h)
    sigma_x = ((right - left) * _CORE / 6).clamp_min(stride / 6)[..., None]
    sigma_y = ((bottom - top) * _CORE / 6).clamp_min(stride / 6)[..., None]
    bump_x = torch.exp(-(across**2) / (2 * sigma_x**2))
    bump_y = torch.exp(-(down**2) / (2 * sigma_y**2))
    bumps = bump_y[..., :, None] * bump_x[..., None, :] * known[..., None, None]  # (N, K, h, w)

    heat = torch.zeros(len(objects), classes, height, width, device=device, dtype=dtype)
    heat.scatter_reduce_(1, kinds.clamp_min(0)[..., None, None].expand_as(bumps), bumps, "amax")

    core_x = across.abs() <= torch.maximum((right - left)[..., None] * _CORE / 2, torch.full_like(sigma_x, stride / 2))
    core_y = down.abs() <= torch.maximum((bottom - top)[..., None] * _CORE / 2, torch.full_like(sigma_y, stride / 2))
    core = core_y[..., :, None] & core_x[..., None, :] & known[..., None, None]  # (N, K, h, w)
    area = ((right - left) * (bottom - top))[..., None, None].expand_as(bumps)
    peak = (down == 0)[..., :, None] & (across == 0)[..., None, :]
    # Peaks take precedence over other cells; among several peaks that of the smallest box.
    claim, owner = torch.where(core, torch.where(peak, -1 / (1 + area), area), torch.inf).min(1)  # (N, h, w)
    owned = claim.isfinite()
    mine = owned[:, None] & (owner[:, None] == torch.arange(most, device=device)[:, None, None])  # (N, K, h, w)
    bumps = bumps * mine
    bumps = bumps / bumps.sum((2, 3), keepdim=True).clamp_min(torch.finfo(dtype).tiny)
    weight = bumps.sum(1)

    corner = torch.gather(boxes, 1, owner.flatten(1)[..., None].expand(-1, -1, 4))  # (N, h w, 4)
    corner = corner.transpose(1, 2).unflatten(2, (height, width))  # (N, 4, h, w)
    grid = torch.stack((columns.expand(height, width), rows[:, None].expand(height, width)))  # (2, h, w)
    sides = torch.cat((grid - corner[:, :2], corner[:, 2:] - grid), 1) * owned[:, None]
    return Targets(heat, sides, weight, known.sum().clamp_min(1).to(dtype))


def focal_loss(logits: Tensor, heat: Tensor, count: Tensor) -> Tensor:
    """Return CenterNet's focal loss, a cross entropy with little weight on cells that are right or near a peak.

    It is −(1 − p)² log p at peaks and −(1 − heat)⁴ p² log(1 − p) elsewhere, with p the sigmoid of the logits.

    Source: Law and Deng, "CornerNet" (arXiv 1808.01244), equation 1, with alpha 2 and beta 4.

    Args:
        logits: Predicted logits of the heat, (N, C, h, w).
        heat: Target in [0, 1], 1 at peaks, (N, C, h, w).
    """
    probability = logits.sigmoid()
    at_peaks = (1 - probability) ** 2 * F.softplus(-logits)
    elsewhere = (1 - heat) ** 4 * probability**2 * F.softplus(logits)
    return torch.where(heat == 1, at_peaks, elsewhere).sum() / count


def box_loss(sides: Tensor, targets: Targets) -> Tensor:
    """Return one minus the generalised intersection over union, averaged over the objects: a scalar in [0, 2].

    Source: Rezatofighi et al., "Generalized Intersection over Union" (arXiv 1902.09630).

    Args:
        sides: Predicted distances in pixels to left, top, right and bottom, positive, (N, 4, h, w).
    """
    true = targets.sides
    area = (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])
    true_area = (true[:, 0] + true[:, 2]) * (true[:, 1] + true[:, 3])
    inner, outer = torch.minimum(sides, true), torch.maximum(sides, true)
    # A cell at the edge of a small box may lie outside of it, with a negative distance to that side.
    overlap = (inner[:, 0] + inner[:, 2]).clamp_min(0) * (inner[:, 1] + inner[:, 3]).clamp_min(0)
    hull = (outer[:, 0] + outer[:, 2]) * (outer[:, 1] + outer[:, 3])
    union = area + true_area - overlap
    tiny = torch.finfo(sides.dtype).tiny
    giou = overlap / union.clamp_min(tiny) - (hull - union) / hull.clamp_min(tiny)
    return (targets.weight * (1 - giou)).sum() / targets.number


def find_peaks(logits: Tensor, sides: Tensor, stride: int, height: int, width: int, limit: int) -> list[Detections]:
    """Return the objects of each image, best first: the cells of the heat maps that exceed their eight neighbours.

    The choice of peaks replaces a suppression of overlapping boxes.

    Args:
        logits: Logits of the heat, (N, C, h, w).
        sides: Distances to the sides in pixels, (N, 4, h, w).
        stride: Height and width of a cell in pixels.
    """
    columns = logits.shape[-1]
    # Among equal neighbours the first is the peak. Logits are compared because the sigmoids of large ones are equal.
    highest, place = F.max_pool2d(logits, 3, 1, 1, return_indices=True)
    own = torch.arange(logits[0, 0].numel(), device=logits.device).view_as(logits[0, 0])
    heat = torch.where((logits == highest) & (place == own), logits.sigmoid(), 0.0)
    scores, best = heat.flatten(1).topk(min(limit, heat[0].numel()))  # (N, K)
    kinds, cell = best // own.numel(), best % own.numel()
    distances = torch.gather(sides.flatten(2), 2, cell[:, None].expand(-1, 4, -1))  # (N, 4, K)
    x, y = (cell % columns + 0.5) * stride, (cell // columns + 0.5) * stride
    left, top, right, bottom = distances.unbind(1)
    corners = (
        (x - left).clamp(0, width),
        (y - top).clamp(0, height),
        (x + right).clamp(0, width),
        (y + bottom).clamp(0, height),
    )
    boxes = torch.stack(corners, -1)  # (N, K, 4)
    found = (scores > 0) & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    return [Detections(boxes[image, keep], scores[image, keep], kinds[image, keep]) for image, keep in enumerate(found)]
