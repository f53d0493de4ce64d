"""Validation of a fusion network: the loss and the metrics of its task's ruler, on whole images of 8 bits."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.run_pairs import PairSet
from ..objectives import FusionLoss
from ..objectives.metrics import BASKET, METRICS, fusion_metrics

SMALLEST = max(METRICS[name].smallest_side for name in BASKET)  # pixels: the metrics need images of this size at least

Fuse = Callable[[Tensor, Tensor], Tensor]  # two (1, 1, H, W) in [0, 1] to the fused image


class Validation(NamedTuple):
    """The result of a validation.

    Attributes:
        scores: Mean loss and metrics under "mean", and of several data sets also those of each, by its name. A mean is
            over the pairs for which a metric is defined, and NaN if there are none.
        examples: First source, second source and fused image of some pairs side by side, (H, 3 W) uint8, by name.
    """

    scores: dict[str, dict[str, float]]
    examples: dict[str, NDArray[np.uint8]]


def validate(
    fuse: Fuse,
    sets: Sequence[PairSet],
    loss: FusionLoss,
    device: torch.device,
    examples: int = 0,
    metrics: Sequence[str] = BASKET,
) -> Validation:
    """Fuse and score all validation pairs.

    Args:
        sets: Data sets; each has the same weight in the mean, whatever its number of validation pairs.
        metrics: Names of the metrics beside the loss.
    """
    scores: dict[str, dict[str, float]] = {}
    pictures: dict[str, NDArray[np.uint8]] = {}
    for place, pair_set in enumerate(sets):
        wanted = len(range(place, examples, len(sets)))
        rows = []
        with torch.no_grad():
            for index, (name, batch) in enumerate(pair_set.validation_pairs(device)):
                first, second = batch.first, batch.second
                fused = fuse(first, second)
                shown, first_shown, second_shown = (
                    (image.clamp(0, 1) * 255).round().to(torch.uint8) for image in (fused, first, second)
                )
                values = fusion_metrics(shown, first_shown, second_shown, metrics)
                rows.append(torch.stack([loss(fused, first, second), *(values[key][0] for key in metrics)]).double())
                if index < wanted:
                    pictures[name] = torch.cat([first_shown, second_shown, shown], 3)[0, 0].cpu().numpy()
        scores[pair_set.name] = dict(zip(("loss", *metrics), _mean(torch.stack(rows)).tolist(), strict=True))
    mean = {}
    for name in ("loss", *metrics):
        of_sets = [row[name] for row in scores.values()]
        known = [value for value in of_sets if name == "loss" or not math.isnan(value)] or of_sets
        mean[name] = sum(known) / len(known)
    return Validation({"mean": mean, **(scores if len(scores) > 1 else {})}, pictures)


def _mean(rows: Tensor) -> Tensor:
    """Average loss and metrics over rows, (R, 1 + metrics); metrics that are undefined (NaN) are left out."""
    mean = rows.mean(0)
    partly = mean.isnan()
    partly[0] = False  # a loss that is not a number is a fault
    return torch.where(partly, rows.nanmean(0), mean)
