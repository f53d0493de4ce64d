"""Validation of a finetuning: the fusion loss and the scores of the downstream task, on whole pairs."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import RunPairs
from ..data.splits import spread
from ..downstream import TaskNetwork
from ..downstream.scoring import score_detections, score_masks
from ..objectives import FusionLoss
from ..objectives.metrics import METRICS
from ..runtime.loop import Scores
from .finetune_curves import show_labels
from .finetune_pairs import validation_pairs
from .multiplier import excess

PRIMARY = {"detection": "AP50", "segmentation": "mIoU"}
"""The score by which the best weights of each downstream task are chosen."""

SMALLEST = METRICS["SSIM"].smallest_side  # pixels: a fusion loss needs images of this size at least

Fuse = Callable[[Tensor, Tensor], Tensor]  # two (1, 1, H, W) in [0, 1] to the image that the task network sees


class Validation(NamedTuple):
    """The result of a validation.

    Attributes:
        scores: Under "mean" the fusion loss "loss", and for detection "AP50", "AP75" and "mAP", for segmentation
            "mIoU". Under "class NAME" its "AP50" or "IoU", which is NaN if the class does not occur.
        examples: Pictures of some pairs by name, as `show_labels` makes them.
    """

    scores: Scores
    examples: dict[str, NDArray[np.uint8]]


@torch.no_grad()
def validate(
    fuse: Fuse, task: TaskNetwork | None, pairs: RunPairs, loss: FusionLoss, device: torch.device, examples: int = 0
) -> Validation:
    """Score all validation pairs, whole, as the images would be saved: in [0, 1] with 8 bits.

    Args:
        fuse: Function that fuses a pair; it is not called for pairs with a fused image of their own.
        examples: Number of pairs to show, spread over all validation pairs.
    """
    shown = set(spread(range(len(pairs.positions("validation"))), examples))
    losses: list[float] = []
    predictions, truths, sizes = [], [], []
    pictures: dict[str, NDArray[np.uint8]] = {}
    for place, (name, batch, fused) in enumerate(validation_pairs(pairs, device)):
        image = fuse(batch.first, batch.second) if fused is None else fused
        losses.append(loss(image, batch.first, batch.second).item())
        image = (image.clamp(0, 1) * 255).round() / 255
        truth = prediction = None
        if task is not None:
            (prediction,) = task.predict(image)
            truth = batch.objects[0] if batch.objects is not None else batch.masks[0]  # type: ignore[index]
            predictions.append(_on_host(prediction))
            truths.append(_on_host(truth))
            sizes.append((image.shape[-2], image.shape[-1]))
        if place in shown:
            pictures[name] = show_labels(batch.first, batch.second, image, truth, prediction)
    mean = {"loss": math.fsum(losses) / len(losses)}
    if task is None:
        return Validation({"mean": mean}, pictures)
    if pairs.source.labels == "boxes":
        detection = score_detections(predictions, truths, pairs.source.classes, sizes)
        mean |= {"AP50": detection.ap50, "AP75": detection.ap75, "mAP": detection.map}
        by_class = {name: {"AP50": value} for name, value in detection.ap50_by_class.items()}
    else:
        segmentation = score_masks(predictions, truths, pairs.source.classes)
        mean |= {"mIoU": segmentation.miou}
        by_class = {name: {"IoU": value} for name, value in segmentation.iou.items()}
    # A class may be called "mean".
    return Validation({"mean": mean} | {f"class {name}": row for name, row in by_class.items()}, pictures)


def rank_of(
    scores: Mapping[str, float], primary: str | None, reference: float, tolerance: float | None
) -> tuple[bool, float]:
    """Rank a validation; the greatest rank belongs to the best weights.

    Args:
        scores: Mean scores of the validation, with the fusion loss "loss".
        primary: Name of the score to maximise; None to minimise the fusion loss.
        reference: Fusion loss on the validation pairs at the start.
        tolerance: Fraction by which the fusion loss may exceed the reference; None for any.

    Returns:
        Whether the fusion loss is within the tolerance, and the score; or minus the excess where it is not.

    Example:
        >>> rank_of({"loss": 1.04, "AP50": 0.3}, "AP50", 1.0, 0.05)
        (True, 0.3)
        >>> kept, score = rank_of({"loss": 1.2, "AP50": 0.9}, "AP50", 1.0, 0.05)
        >>> kept, round(score, 2)
        (False, -0.2)
    """
    above = excess(scores["loss"], reference)
    kept = tolerance is None or above <= tolerance
    return kept, (-scores["loss"] if primary is None else scores[primary]) if kept else -above


def _on_host(labels: Any) -> Any:
    """Move a mask, or every field of objects or detections, to the CPU."""
    return labels.cpu() if isinstance(labels, Tensor) else type(labels)(*(field.cpu() for field in labels))
