"""Validation of a finetuning: the fusion loss and the scores of the downstream task, on whole pairs."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import Objects, PairBatch, RunPairs
from ..data.splits import spread
from ..downstream import Detections, TaskNetwork
from ..downstream.scoring import score_detections, score_masks
from ..objectives import FusionLoss
from ..objectives.metrics import METRICS
from ..objectives.trivial_fusion import TRIVIAL
from ..runtime.loop import Scores
from .finetune_curves import show_labels
from .finetune_pairs import validation_pairs
from .promise import Promise
from .task_images import shown

PRIMARY = {"detection": "AP50", "segmentation": "mIoU"}
"""The score by which the best weights of each downstream task are chosen."""

SMALLEST = METRICS["SSIM"].smallest_side  # pixels: a fusion loss needs images of this size at least

Fuse = Callable[[Tensor, Tensor], Tensor]  # two (1, 1, H, W) in [0, 1] to the fused image
Shown = Callable[[Tensor, PairBatch, int], Tensor]  # the fused image, the pair and a number of planes to these planes


class Validation(NamedTuple):
    """The result of a validation.

    Attributes:
        scores: Under "mean" the fusion loss "loss", and for detection "AP50", "AP75" and "mAP", for segmentation
            "mIoU". Under "class NAME" its "AP50" or "IoU", which is NaN if the class does not occur.
        examples: Pictures of some pairs by name, as `show_labels` makes them.
        predictions: What the task network finds in each pair, `Detections` or a mask (H, W), on the CPU.
        truths: The `Objects` or the mask (H, W) of each pair, on the CPU.
    """

    scores: Scores
    examples: dict[str, NDArray[np.uint8]]
    predictions: tuple[Detections | Tensor, ...] = ()
    truths: tuple[Objects | Tensor, ...] = ()


@torch.no_grad()
def validate(
    fuse: Fuse,
    task: TaskNetwork | None,
    pairs: RunPairs,
    loss: FusionLoss,
    device: torch.device,
    *,
    shown: Shown = shown,
    colour: str | None = None,
    change: Callable[[int, PairBatch], PairBatch] | None = None,
    examples: int = 0,
) -> Validation:
    """Score all validation pairs, whole, as the images would be saved: in [0, 1] with 8 bits.

    Args:
        fuse: Function that fuses a pair; it is not called for pairs with a fused image of their own.
        shown: Function that makes the planes for the task network from a fused image; see `task_images.shown`.
        colour: The source that has the colours, where the task network sees them; None for luma.
        change: What changes a pair, which is given with its place, before it is fused; None for nothing.
        examples: Number of pairs to show, spread over all validation pairs.
    """
    pictured = set(spread(range(len(pairs.positions("validation"))), examples))
    losses: list[float] = []
    predictions, truths, sizes = [], [], []
    pictures: dict[str, NDArray[np.uint8]] = {}
    for place, (name, batch, fused) in enumerate(validation_pairs(pairs, device, colour)):
        batch = batch if change is None else change(place, batch)
        image = fuse(batch.first, batch.second) if fused is None else fused
        losses.append(loss(image, batch.first, batch.second).item())
        truth = prediction = None
        if task is not None:
            (prediction,) = task.predict(_in_8_bits(shown(image, batch, task.channels)))
            truth = batch.objects[0] if batch.objects is not None else batch.masks[0]  # type: ignore[index]
            predictions.append(_on_host(prediction))
            truths.append(_on_host(truth))
            sizes.append((image.shape[-2], image.shape[-1]))
        if place in pictured:
            image = _in_8_bits(image.clamp(0, 1))
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
    scores = {"mean": mean} | {f"class {name}": row for name, row in by_class.items()}
    return Validation(scores, pictures, tuple(predictions), tuple(truths))


@torch.no_grad()
def trivial_losses(pairs: RunPairs, loss: FusionLoss, device: torch.device) -> dict[str, float]:
    """Compute the mean fusion loss of each method without a network on the validation pairs."""
    losses: dict[str, list[float]] = {name: [] for name in TRIVIAL}
    for _, batch, _ in validation_pairs(pairs, device):
        for name, fuse in TRIVIAL.items():
            losses[name].append(loss(fuse(batch.first, batch.second), batch.first, batch.second).item())
    return {name: math.fsum(values) / len(values) for name, values in losses.items()}


def rank_of(scores: Mapping[str, float], primary: str | None, promise: Promise | None) -> tuple[bool, float]:
    """Rank a validation; the greatest rank belongs to the best weights.

    Args:
        scores: Mean scores of the validation, with the fusion loss "loss".
        primary: Name of the score to maximise; None to minimise the fusion loss.
        promise: What the fusion loss has to keep; None for nothing.

    Returns:
        Whether the promise is kept, and the score; or minus the fusion loss where it is broken.

    Example:
        >>> promise = Promise(start=1.0, trivial=2.0, spread=1.0, tolerance=0.1)
        >>> rank_of({"loss": 1.04, "AP50": 0.3}, "AP50", promise), rank_of({"loss": 1.2, "AP50": 0.9}, "AP50", promise)
        ((True, 0.3), (False, -1.2))
    """
    if promise is not None and not promise.kept(scores["loss"]):
        return False, -scores["loss"]
    return True, -scores["loss"] if primary is None else scores[primary]


def _in_8_bits(image: Tensor) -> Tensor:
    return (image * 255).round() / 255


def _on_host(labels: Any) -> Any:
    """Move a mask, or every field of objects or detections, to the CPU."""
    return labels.cpu() if isinstance(labels, Tensor) else type(labels)(*(field.cpu() for field in labels))
