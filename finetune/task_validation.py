"""How well a task is done on pairs that no training sees, and what the fusion loss is there."""

import math
from collections.abc import Callable
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
from .finetune_curves import show_labels
from .finetune_pairs import validation_pairs

PRIMARY = {"detection": "AP50", "segmentation": "mIoU"}
"""The score by which the best weights of each task are chosen."""

Fuse = Callable[[Tensor, Tensor], Tensor]  # two (1, 1, H, W) in [0, 1] to the image that the task network sees


class Validation(NamedTuple):
    """What a validation found.

    Attributes:
        scores: "loss", the fusion loss, and of detection "AP50", "AP75", "mAP" and the AP50 of each class, of
            segmentation "mIoU" and the IoU of each class; nan for a class that does not occur.
        examples: By name, both sources and the image with its labels and with what was found, (H, W', 3) uint8.
    """

    scores: dict[str, float]
    examples: dict[str, NDArray[np.uint8]]


@torch.no_grad()
def validate(
    fuse: Fuse, task: TaskNetwork, pairs: RunPairs, loss: FusionLoss, device: torch.device, examples: int = 0
) -> Validation:
    """Score all validation pairs, whole, as the images would be saved: in [0, 1] with 8 bits.

    Args:
        fuse: makes the image of a pair, where the pairs bring none.
        task: the task network, in evaluation mode.
        pairs: the pairs and their labels.
        loss: the fusion loss, of the images before they are rounded.
        device: where to compute.
        examples: how many pairs to show.

    Returns:
        Scores and examples.
    """
    count = len(pairs.positions("validation"))
    shown = set(spread(range(count), examples))
    losses, predictions, truths, sizes = [], [], [], []
    pictures: dict[str, NDArray[np.uint8]] = {}
    for place, (name, batch, given) in enumerate(validation_pairs(pairs, device)):
        image = fuse(batch.first, batch.second) if given is None else given
        losses.append(loss(image, batch.first, batch.second).item())
        image = (image.clamp(0, 1) * 255).round() / 255
        (prediction,) = task.predict(image)
        truth = batch.objects[0] if batch.objects is not None else batch.masks[0]  # type: ignore[index]
        if place in shown:
            pictures[name] = show_labels(batch.first, batch.second, image, truth, prediction)
        predictions.append(_on_host(prediction))
        truths.append(_on_host(truth))
        sizes.append((image.shape[-2], image.shape[-1]))
    scores = {"loss": math.fsum(losses) / len(losses)}
    classes = pairs.source.classes
    if pairs.source.labels == "boxes":
        detection = score_detections(predictions, truths, classes, sizes)
        scores |= {"AP50": detection.ap50, "AP75": detection.ap75, "mAP": detection.map}
        scores |= {f"AP50 {name}": value for name, value in detection.ap50_by_class.items()}
    else:
        segmentation = score_masks(predictions, truths, classes)
        scores |= {"mIoU": segmentation.miou} | {f"IoU {name}": value for name, value in segmentation.iou.items()}
    return Validation(scores, pictures)


def _on_host(labels: Any) -> Any:
    """Bring a mask, or the fields of what holds boxes, to the CPU."""
    return labels.cpu() if isinstance(labels, Tensor) else type(labels)(*(field.cpu() for field in labels))
