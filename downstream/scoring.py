"""Scores of detections and class masks against labels: COCO average precision and mean intersection over union."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.pair_batch import IGNORED, Objects
from ..runtime.errors import UserError
from .task_network import MOST_DETECTIONS, Detections

_LEAST_OVERLAP = 0.5  # intersection over union from which a detection has found an object
_RECALLS = np.linspace(0, 1, 101)  # where COCO reads precisions


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


class DetectionMatches(NamedTuple):
    """The detections in a set of images, matched with the labels once, for scores of any choice of these images.

    Attributes:
        places: Position of the image of each detection, (detections,) int64, from the highest score to the lowest;
            of equal scores, those of the earlier image come first.
        kinds: Class of each detection, (detections,) int64, a position in the class names.
        hits: Whether a detection has found an object, (detections,) bool.
        objects: Number of labelled objects by image and class, (images, classes) int64.
    """

    places: NDArray[np.int64]
    kinds: NDArray[np.int64]
    hits: NDArray[np.bool_]
    objects: NDArray[np.int64]

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.objects)

    def class_scores(self, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """Compute the AP50 by class of sets in which images occur any number of times.

        A set scores as COCO would score it with the copies of each image in a row. The copies of a detection stay
        together, which is another order only where scores of one image and class are equal.

        Args:
            draws: How often each image occurs in each set, (sets, images).

        Returns:
            AP50 in [0, 1], (sets, classes), or nan where no image of a set has an object of the class.
        """
        scores = np.full((len(draws), self.objects.shape[1]), np.nan)
        for kind, objects in enumerate((draws @ self.objects).T):
            some, mine = objects > 0, self.kinds == kind
            weights = draws[some].T[self.places[mine]]
            scores[some, kind] = _average_precisions(weights, self.hits[mine], objects[some])
        return scores


class MaskConfusions(NamedTuple):
    """What is taken for what in the masks of a set of images, for scores of any choice of these images.

    Attributes:
        pixels: Number of pixels by image, label and prediction, (images, classes, classes) int64.
    """

    pixels: NDArray[np.int64]

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.pixels)

    def class_scores(self, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """Compute the intersection over union by class of sets in which images occur any number of times.

        Args:
            draws: How often each image occurs in each set, (sets, images).

        Returns:
            Values in [0, 1], (sets, classes), or nan where a class occurs neither in the labels nor the predictions.
        """
        # Numbers of pixels are exact in float64, whose products are quicker than those of integers.
        counts = np.tensordot(draws.astype(np.float64), self.pixels.astype(np.float64), axes=1)
        both = counts.diagonal(axis1=1, axis2=2)
        with np.errstate(invalid="ignore"):  # 0 / 0, which is nan
            return both / (counts.sum(axis=1) + counts.sum(axis=2) - both)


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
    confusions = count_confusions(predictions, truths, classes)
    iou = torch.from_numpy(confusions.class_scores(np.ones((1, confusions.images), np.int64))[0])
    return SegmentationScores(float(iou.nanmean()), dict(zip(classes, iou.tolist(), strict=True)))


def match_detections(
    predictions: Sequence[Detections], truths: Sequence[Objects], classes: Sequence[str]
) -> DetectionMatches:
    """Match detections with labelled objects by the rules of COCO, at an intersection over union of 0.5.

    In each image and class the 100 best detections choose in the order of their scores: each takes the object that
    overlaps it most among those that are left, if they overlap by 0.5 at least.

    Args:
        classes: Class names, to which the positions in `predictions` and `truths` refer.

    References:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Example:
        >>> truth = Objects(torch.tensor([[8.0, 10, 30, 40]]), torch.tensor([0]))
        >>> found = Detections(truth.boxes, torch.tensor([0.9]), truth.classes)
        >>> nothing = Detections(*(part[:0] for part in found))
        >>> matches = match_detections([found, nothing], [truth, truth], ["person"])
        >>> matches.class_scores(np.array([[2, 0], [1, 1]])).round(3).tolist()
        [[1.0], [0.505]]
    """
    places, kinds, hits, scores = [], [], [], []
    objects = np.zeros((len(truths), len(classes)), np.int64)
    for place, (found, truth) in enumerate(zip(predictions, truths, strict=True)):
        for kind in range(len(classes)):
            wanted = truth.boxes[truth.classes == kind]
            objects[place, kind] = len(wanted)
            mine = found.classes == kind
            best, order = found.scores[mine].sort(descending=True, stable=True)
            boxes = found.boxes[mine][order[:MOST_DETECTIONS]]
            places.append(np.full(len(boxes), place))
            kinds.append(np.full(len(boxes), kind))
            hits.append(_find(_overlaps(_sized(boxes), _sized(wanted)).cpu().numpy()))
            scores.append(best[:MOST_DETECTIONS].cpu().numpy())
    ranks = np.argsort(-np.concatenate(scores), kind="stable")
    all_places, all_kinds, all_hits = (np.concatenate(parts)[ranks] for parts in (places, kinds, hits))
    return DetectionMatches(all_places, all_kinds, all_hits, objects)


def count_confusions(predictions: Iterable[Tensor], truths: Iterable[Tensor], classes: Sequence[str]) -> MaskConfusions:
    """Count in each image which classes a segmentation network takes for which.

    Args:
        predictions: Masks (H, W) int64 of the images, with a position in `classes` at each pixel.
        truths: Masks (H, W) int64 of the images, with a position in `classes` or `IGNORED` at each pixel.

    Raises:
        UserError: If torchmetrics is not installed.

    Example:
        >>> truth = torch.tensor([[0, 0], [1, 1]])
        >>> found = torch.tensor([[0, 0], [0, 1]])
        >>> count_confusions([found], [truth], ["background", "car"]).pixels.tolist()
        [[[2, 0], [1, 1]]]
    """
    try:
        from torchmetrics.functional.classification import multiclass_confusion_matrix
    except ImportError as error:
        raise UserError(f"scoring masks needs the package {error.name}; pip install 'timfuse[tasks]'") from None
    size = len(classes)
    pixels = [
        multiclass_confusion_matrix(prediction.cpu(), truth.cpu(), size, ignore_index=IGNORED).numpy()
        for prediction, truth in zip(predictions, truths, strict=True)
    ]
    return MaskConfusions(np.array(pixels, np.int64).reshape(-1, size, size))


def _records(image: int, objects: Objects | Detections) -> list[dict]:
    """Return COCO's entries for the objects of one image, with boxes as left, top, width, height."""
    boxes = _sized(objects.boxes)
    scores = objects.scores if isinstance(objects, Detections) else torch.ones(len(boxes))
    return [
        {"image_id": image, "category_id": kind, "bbox": box, "area": box[2] * box[3], "score": score, "iscrowd": 0}
        for box, kind, score in zip(boxes.tolist(), objects.classes.tolist(), scores.tolist(), strict=True)
    ]


def _sized(boxes: Tensor) -> Tensor:
    """Turn boxes (K, 4) into COCO's, left, top, width and height, float64."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).double()


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union (K, L) of COCO's boxes (K, 4) and (L, 4), rounded as COCO does."""
    corners, ends = first[:, None, :2], first[:, None, :2] + first[:, None, 2:]
    sides = torch.minimum(ends, second[:, :2] + second[:, 2:]) - torch.maximum(corners, second[:, :2])
    both = sides.clamp_min(0).prod(dim=2)
    return both / (first[:, 2:].prod(dim=1)[:, None] + second[:, 2:].prod(dim=1) - both)


def _find(overlaps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Decide which detections find an object (K,), from their overlaps with the objects (K, L), best first."""
    left = overlaps.copy()
    hits = np.zeros(len(left), bool)
    for place in range(len(left) if left.size else 0):
        choice = left.shape[1] - 1 - left[place, ::-1].argmax()  # the last of equals, as in COCO
        if left[place, choice] >= _LEAST_OVERLAP:
            hits[place] = True
            left[:, choice] = 0
    return hits


def _average_precisions(
    weights: NDArray[np.int64], hits: NDArray[np.bool_], objects: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute COCO's average precision of one class in several sets.

    Args:
        weights: How often each detection occurs in each set, best detection first, (detections, sets).
        hits: Whether each detection has found an object, (detections,).
        objects: Number of objects in each set, at least 1, (sets,).
    """
    # Only what finds an object reaches another recall, and only there is the precision greatest.
    found, right = weights.cumsum(axis=0)[hits], weights[hits].cumsum(axis=0)
    precisions = right / np.maximum(found, 1)
    precisions = np.maximum.accumulate(precisions[::-1], axis=0)[::-1]
    reached = np.searchsorted(_RECALLS, right / objects, side="right")
    return (precisions * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(_RECALLS)
