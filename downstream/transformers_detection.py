"""Any of the detectors of transformers as a task network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from ..data.pair_batch import Objects, PairBatch
from .checkpoints import (
    build_model,
    channels_of,
    class_names,
    find_checkpoint,
    load_model,
    make_config,
    plain_config,
    read_config,
    require_transformers,
)
from .detections import Detections
from .luma_input import LumaInput
from .network import TaskNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILIES = (
    "conditional_detr",
    "d_fine",
    "dab-detr",
    "deformable_detr",
    "detr",
    "rt_detr",
    "rt_detr_v2",
    "table-transformer",
    "yolos",
)
"""The kinds of detectors that take images of any size that is a multiple of 32, and know a loss."""

MOST_DETECTIONS = 100
"""A detector answers with this many in an image, which is what COCO counts."""


class TransformersDetector(TaskNetwork):
    """A detector of transformers that sees luma images and finds the classes of a data set.

    The images are padded on the right and at the bottom to multiples of 32, never resized: the objects keep their size
    in pixels. Whether batch normalisation learns is left to `train()` and `eval()`.

    Args:
        model: What `AutoModelForObjectDetection` builds; its labels are the class names.
        inputs: What the model expects of its images.
        name: What the user called the network.
    """

    task = "detection"
    kind = "transformers-detector"

    def __init__(self, model: "PreTrainedModel", inputs: LumaInput, name: str) -> None:
        super().__init__()
        self.model, self.inputs, self.name = model, inputs, name
        self.classes = class_names(model.config)

    @classmethod
    def from_pretrained(cls, source: str | Path, classes: Sequence[str]) -> Self:
        """Open a saved detector and fit it to the classes of a data set.

        Args:
            source: A folder, or the name of a published network, such as `PekingU/rtdetr_r18vd`.
            classes: Names of the classes.

        Returns:
            The detector; what it knew of classes of the same names is kept, the other classes start afresh.

        Raises:
            UserError: If there is no such detector, it cannot be used, or a package is missing.
        """
        require_transformers()
        from transformers import AutoModelForObjectDetection

        folder = find_checkpoint(source)
        config = make_config(read_config(folder), FAMILIES, source)
        model = load_model(AutoModelForObjectDetection, folder, config, classes)
        return cls(model, LumaInput.read(folder, channels_of(config)), str(source))

    @classmethod
    def from_specification(cls, specification: Mapping[str, Any]) -> Self:
        """Make a detector anew, with fresh weights and without any file.

        Args:
            specification: As `specification` returns it.

        Raises:
            UserError: If its configuration is not valid, or a package is missing.
        """
        require_transformers()
        from transformers import AutoModelForObjectDetection

        config = make_config(specification["config"], FAMILIES, specification["name"])
        model = build_model(AutoModelForObjectDetection, config)
        return cls(model, LumaInput(**specification["inputs"]), specification["name"])

    def specification(self) -> dict[str, Any]:
        """Say what `from_specification` needs, as plain data."""
        return {
            "kind": self.kind,
            "name": self.name,
            "classes": list(self.classes),
            "inputs": self.inputs.specification(),
            "config": plain_config(self.model.config),
        }

    def loss(self, images: Tensor, batch: PairBatch) -> Tensor:
        """Score images by how well their objects are found, by the loss that the detector was published with.

        Args:
            images: (N, 1, H, W) luma in [0, 1]; what is learnt from, instead of the sources in `batch`.
            batch: With its objects.

        Returns:
            A scalar, differentiable by the images and the weights.
        """
        inputs = self.inputs(images)
        assert batch.objects is not None
        labels = [_labels(objects, *inputs.shape[-2:]) for objects in batch.objects]
        return self.model(inputs, labels=labels).loss

    @torch.no_grad()
    def predict(self, images: Tensor) -> list[Detections]:
        """Find the objects in images.

        Args:
            images: (N, 1, H, W) luma in [0, 1].

        Returns:
            Of each image its objects.
        """
        inputs = self.inputs(images)
        output = self.model(inputs)
        scores, queries, classes = _rank(output.logits.float(), len(self.classes))
        (height, width), (full_height, full_width) = images.shape[-2:], inputs.shape[-2:]
        centres, sizes = output.pred_boxes.float().chunk(2, dim=-1)
        corners = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1)  # (N, queries, 4) of the padded image
        corners = corners * corners.new_tensor([full_width, full_height, full_width, full_height])
        corners = corners.clamp(min=0).minimum(corners.new_tensor([width, height, width, height]))
        boxes = corners.gather(1, queries[..., None].expand(-1, -1, 4))
        inside = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        return [
            Detections(each_boxes[keep], each_scores[keep], each_classes[keep])
            for each_boxes, each_scores, each_classes, keep in zip(boxes, scores, classes, inside, strict=True)
        ]


def _rank(logits: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Take the best of (N, queries, classes) logits: scores, queries and classes, (N, K) each."""
    if logits.shape[-1] > classes:
        # The last logit stands for no object, and a query has one answer.
        scores, kinds = logits.softmax(dim=-1)[..., :classes].max(dim=-1)
        scores, queries = scores.topk(min(MOST_DETECTIONS, scores.shape[1]))
        return scores, queries, kinds.gather(1, queries)
    scores, places = logits.sigmoid().flatten(1).topk(min(MOST_DETECTIONS, logits[0].numel()))
    return scores, places // classes, places % classes


def _labels(objects: Objects, height: int, width: int) -> dict[str, Tensor]:
    """The objects of an image as transformers has them: centre and size, relative to the padded image."""
    corners = objects.boxes / objects.boxes.new_tensor([width, height, width, height])
    first, last = corners.chunk(2, dim=1)
    return {"class_labels": objects.classes, "boxes": torch.cat([(first + last) / 2, last - first], dim=1)}
