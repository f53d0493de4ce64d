"""Scores of detections and class masks against labels: COCO average precision and mean intersection over union."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.pair_batch import IGNORED, Objects
from ..runtime.errors import UserError
from .task_network import MOST_DETECTIONS, Detections


class DetectionScores(NamedTuple):
    """COCO average precision, each in [0, 1], or nan if the labels have no object.

    Attributes:
        ap50: Mean over the classes at an intersection over union of 0.5.
        ap75: Mean over the classes at an intersection over union of 0.75.
        map: Mean over the classes and the ten thresholds 0.5, 0.55, ..., 0.95.
        ap50_by_class: Average precision at 0.5 by class; nan for a class without objects, which counts in no mean.
    """

    ap50: float
    ap75: float
    map: float
    ap50_by_class: dict[str, float]


class SegmentationScores(NamedTuple):
    """Intersection over union of class masks, each in [0, 1].

    Attributes:
        miou: Mean over the classes that occur in labels or predictions; nan if every pixel is ignored.
        iou: Intersection over union by class; nan for a class that occurs in neither, which counts in no mean.
    """

    miou: float
    iou: dict[str, float]


def score_detections(
    predictions: Sequence[Detections],
    truths: Sequence[Objects],
    classes: Sequence[str],
    sizes: Sequence[tuple[int, int]],
) -> DetectionScores:
    """Score a detector on a set of images by the rules of COCO.

    Args:
        classes: Class names, to which the positions in `predictions` and `truths` refer.
        sizes: Height and width of each image in pixels.

    Raises:
        UserError: If faster-coco-eval is not installed.

    References:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Example:
        >>> truth = Objects(torch.tensor([[8.0, 10, 30, 40]]), torch.tensor([0]))
        >>> found = Detections(truth.boxes, torch.tensor([0.9]), truth.classes)
        >>> round(score_detections([found], [truth], ["person"], [(64, 96)]).ap50, 3)
        1.0
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise UserError(f"scoring detections needs the package {error.name}; pip install 'timfuse[tasks]'") from None
    images = [{"id": number, "height": height, "width": width} for number, (height, width) in enumerate(sizes)]
    records = [record for image, truth in zip(images, truths, strict=True) for record in _records(image["id"], truth)]
    found = [record for image, each in zip(images, predictions, strict=True) for record in _records(image["id"], each)]
    truth = COCO(
        {
            "images": images,
            "categories": [{"id": number, "name": name} for number, name in enumerate(classes)],
            # Ids start at 1, because COCO's matching uses 0 for "no object".
            "annotations": [{**record, "id": number} for number, record in enumerate(records, start=1)],
        }
    )
    evaluation = COCOeval_faster(truth, truth.loadRes(found), iouType="bbox", print_function=lambda *_: None)
    evaluation.params.maxDets = [MOST_DETECTIONS]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, math.inf]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    # (10 thresholds, 101 recalls, classes, 1, 1); -1 where the truth has no object of the class.
    precision = torch.as_tensor(evaluation.eval["precision"])[..., 0, 0].mean(dim=1)
    precision[precision < 0] = math.nan
    ap50, ap75, mean = (float(each.nanmean()) for each in (precision[0], precision[5], precision))
    return DetectionScores(ap50, ap75, mean, dict(zip(classes, precision[0].tolist(), strict=True)))


def score_masks(predictions: Iterable[Tensor], truths: Iterable[Tensor], classes: Sequence[str]) -> SegmentationScores:
    """Score a segmentation network on a set of images, with the same weight for each pixel of the set.

    The background is a class like the others and counts in the mean.

    Args:
        predictions: Masks (H, W) int64 of the images, with a position in `classes` at each pixel.
        truths: Masks (H, W) int64 of the images, with a position in `classes` or `IGNORED` at each pixel.
        classes: Names of the mask values, the background first.

    Raises:
        UserError: If torchmetrics is not installed.

    Example:
        >>> truth = torch.tensor([[0, 0], [1, 1]])
        >>> score_masks([torch.tensor([[0, 0], [0, 1]])], [truth], ["background", "car"]).iou["car"]  # doctest: +SKIP
        0.5
    """
    try:
        from torchmetrics.classification import MulticlassConfusionMatrix
    except ImportError as error:
        raise UserError(f"scoring masks needs the package {error.name}; pip install 'timfuse[tasks]'") from None
    confusion = MulticlassConfusionMatrix(len(classes), ignore_index=IGNORED)
    for prediction, truth in zip(predictions, truths, strict=True):
        confusion.update(prediction.cpu(), truth.cpu())
    # (classes, classes), the rows are the labels.
    counts = confusion.confmat.double()
    both = counts.diagonal()
    # A class that occurs nowhere gets 0 / 0, which is nan.
    iou = both / (counts.sum(dim=0) + counts.sum(dim=1) - both)
    return SegmentationScores(float(iou.nanmean()), dict(zip(classes, iou.tolist(), strict=True)))


def _records(image: int, objects: Objects | Detections) -> list[dict]:
    """Return COCO's entries for the objects of one image, with boxes as left, top, width, height."""
    boxes = torch.cat([objects.boxes[:, :2], objects.boxes[:, 2:] - objects.boxes[:, :2]], dim=1).double()
    scores = objects.scores if isinstance(objects, Detections) else torch.ones(len(boxes))
    return [
        {"image_id": image, "category_id": kind, "bbox": box, "area": box[2] * box[3], "score": score, "iscrowd": 0}
        for box, kind, score in zip(boxes.tolist(), objects.classes.tolist(), scores.tolist(), strict=True)
    ]
