"""Detectors and segmentation networks of transformers as task networks, and a tiny SegFormer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.pair_batch import IGNORED, Objects, PairBatch
from ..runtime.errors import UserError
from .checkpoints import (
    build_model,
    channels_of,
    class_names,
    find_checkpoint,
    load_model,
    make_config,
    plain_config,
    require_transformers,
)
from .luma_input import LumaInput
from .specification import read_channels
from .task_network import MOST_DETECTIONS, Detections, TaskNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformersNetwork(TaskNetwork):
    """A network of transformers for luma or colour images and the classes of a data set.

    Images are padded on the right and at the bottom to multiples of 32 and never resized, so that objects keep their
    size in pixels. `train()` and `eval()` decide whether batch normalisation learns.
    """

    def __init__(self, task: str, model: "PreTrainedModel", inputs: LumaInput, name: str, channels: int = 1) -> None:
        super().__init__()
        self.task, self.kind, self.channels = task, KINDS[task].name, channels
        self.model, self.inputs, self.name = model, inputs, name
        self.classes = class_names(model.config)

    @classmethod
    def from_pretrained(
        cls, task: str, source: str | Path, classes: Sequence[str], channels: int = 1
    ) -> "TransformersNetwork":
        """Open a saved network and fit it to the classes of a data set.

        Args:
            source: A folder, or the name of a published network, such as `PekingU/rtdetr_r18vd` or
                `nvidia/segformer-b0-finetuned-ade-512-512`.
            channels: Number of planes of the images: 1 for luma, which all channels of the network get, or as many as
                it has.

        Returns:
            The network. Classes that the saved network knows keep their weights; the others get fresh ones.

        Raises:
            UserError: If there is no such network, it does not serve the task, or a package is missing, or the
                network takes images of another number of planes.
        """
        require_transformers()
        kind = KINDS[task]
        folder, content = find_checkpoint(source)
        config = make_config(content, kind.families, source)
        if channels not in (1, channels_of(config)):
            raise UserError(
                f"{source} takes images of {channels_of(config)} planes, not {channels}; set"
                " downstream.colour=false, or choose another downstream.network"
            )
        model = load_model(kind.model, folder, config, classes)
        network = cls(task, model, LumaInput.read(folder, channels_of(config)), str(source), channels)
        known = {name.casefold() for name in class_names(config)}
        network.fresh_classes = tuple(name for name in classes if name.casefold() not in known)
        return network

    @classmethod
    def from_specification(cls, specification: Mapping[str, Any]) -> "TransformersNetwork":
        """Build a network with fresh weights from the result of `specification`, without any file or connection.

        Raises:
            UserError: If it is of another kind, incomplete or not valid, or a package is missing.
        """
        tasks = {kind.name: task for task, kind in KINDS.items()}
        name = str(specification.get("kind"))
        if name not in tasks:
            raise UserError(f"no task network of the kind {name}; get the description of the network again")
        require_transformers()
        kind = KINDS[tasks[name]]
        try:
            config = make_config(specification["config"], kind.families, specification["name"])
            inputs = LumaInput(**specification["inputs"])
            model = build_model(kind.model, config)
            return cls(tasks[name], model, inputs, specification["name"], read_channels(specification))
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"the description of the task network is incomplete ({error}); get it again") from None

    def specification(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "classes": list(self.classes),
            **({} if self.channels == 1 else {"channels": self.channels}),
            "inputs": self.inputs.specification(),
            "config": plain_config(self.model.config),
        }

    def loss(self, images: Tensor, batch: PairBatch) -> Tensor:
        """Return the published loss of a detector, or cross entropy and Dice loss of the labelled pixels."""
        return KINDS[self.task].loss(self.model, self.inputs(images), batch)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Any:
        return KINDS[self.task].predict(self.model, self.inputs(images), *images.shape[-2:])


def _detection_loss(model: "PreTrainedModel", inputs: Tensor, batch: PairBatch) -> Tensor:
    assert batch.objects is not None
    return model(inputs, labels=[_relative(objects, *inputs.shape[-2:]) for objects in batch.objects]).loss


def _detect(model: "PreTrainedModel", inputs: Tensor, height: int, width: int) -> list[Detections]:
    output, (full_height, full_width) = model(inputs), inputs.shape[-2:]
    scores, queries, classes = _rank(output.logits.float(), len(class_names(model.config)))
    centres, sizes = output.pred_boxes.float().chunk(2, dim=-1)
    corners = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1)  # (N, queries, 4) of the padded image
    corners = corners * corners.new_tensor([full_width, full_height, full_width, full_height])
    corners = corners.clamp(min=0).minimum(corners.new_tensor([width, height, width, height]))
    boxes = corners.gather(1, queries[..., None].expand(-1, -1, 4))
    inside = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    found = zip(boxes, scores, classes, inside, strict=True)
    return [Detections(*(part[keep] for part in each)) for *each, keep in found]


def _relative(objects: Objects, height: int, width: int) -> dict[str, Tensor]:
    """Convert the objects of an image to the form of transformers: centre and size, relative to the padded image."""
    corners = objects.boxes / objects.boxes.new_tensor([width, height, width, height])
    first, last = corners.chunk(2, dim=1)
    return {"class_labels": objects.classes, "boxes": torch.cat([(first + last) / 2, last - first], dim=1)}


def _rank(logits: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, queries and classes, (N, K) each, of the best of (N, queries, classes) logits."""
    if logits.shape[-1] > classes:
        # The last logit stands for no object, and a query has one answer.
        scores, kinds = logits.softmax(dim=-1)[..., :classes].max(dim=-1)
        scores, queries = scores.topk(min(MOST_DETECTIONS, scores.shape[1]))
        return scores, queries, kinds.gather(1, queries)
    scores, places = logits.sigmoid().flatten(1).topk(min(MOST_DETECTIONS, logits[0].numel()))
    return scores, places // classes, places % classes


def _segmentation_loss(model: "PreTrainedModel", inputs: Tensor, batch: PairBatch) -> Tensor:
    """Return the mean cross entropy of the pixels that are not ignored plus the Dice loss; 0 if all are ignored."""
    assert batch.masks is not None
    logits = pixel_logits(model, inputs, *batch.masks.shape[-2:])
    total = F.cross_entropy(logits, batch.masks, ignore_index=IGNORED, reduction="sum")
    return total / (batch.masks != IGNORED).sum().clamp(min=1) + dice_loss(logits, batch.masks)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute the mean Dice loss of the classes that masks show; each class counts alike, however small it is.

    With the cross entropy alone, a network calls everything background where objects cover a few percent of the pixels.

    Args:
        logits: Logits of all classes, (N, classes, H, W).
        masks: Class of each pixel, (N, H, W) int64; ignored pixels do not count.

    Returns:
        A scalar in [0, 1]; 0 if all pixels are ignored.

    Example:
        >>> masks = torch.tensor([[[0, 0, 1, 1]]])
        >>> logits = 20.0 * F.one_hot(masks, 3).permute(0, 3, 1, 2)
        >>> round(float(dice_loss(logits, masks)), 4), round(float(dice_loss(-logits, masks)), 4)
        (0.0, 0.75)

    References:
        Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation"
        (arXiv 1606.04797), eq. 3, with the plain sizes in the denominator and 1 added to both sides of the fraction.
    """
    known = (masks != IGNORED)[:, None]
    truth = F.one_hot(masks.where(known[:, 0], 0), logits.shape[1]).permute(0, 3, 1, 2) * known  # (N, classes, H, W)
    shares = logits.softmax(dim=1) * known
    overlap, sizes = (values.sum((0, 2, 3)) for values in (shares * truth, shares + truth))
    shown = truth.sum((0, 2, 3)) > 0
    return ((1 - (2 * overlap + 1) / (sizes + 1)) * shown).sum() / shown.sum().clamp(min=1)


def pixel_logits(model: "PreTrainedModel", inputs: Tensor, height: int, width: int) -> Tensor:
    """Return logits (N, classes, height, width) of padded and normalised images (N, C, H, W)."""
    logits = model(inputs).logits  # coarser than the images
    return F.interpolate(logits, size=inputs.shape[-2:], mode="bilinear")[..., :height, :width]


# Values of `model_type` whose networks take any multiples of 32 as height and width, and have a loss.
_DETECTORS = ["conditional_detr", "d_fine", "dab-detr", "deformable_detr", "detr", "rt_detr", "rt_detr_v2", "yolos"]
_DETECTORS += ["table-transformer"]
_SEGMENTERS = ["beit", "mobilenet_v2", "mobilevit", "mobilevitv2", "segformer", "upernet"]


class Kind(NamedTuple):
    """The differences between detectors and segmentation networks.

    Attributes:
        name: Name of the kind in a specification.
        model: Name of the class of transformers that builds the networks.
        families: Values of `model_type` that can be used.
        loss: Function of a model, its inputs and a batch that returns the loss.
        predict: Function of a model, its inputs, and height and width of the images; see `TaskNetwork.predict`.
    """

    name: str
    model: str
    families: list[str]
    loss: Callable[["PreTrainedModel", Tensor, PairBatch], Tensor]
    predict: Callable[["PreTrainedModel", Tensor, int, int], Any]


KINDS = {
    "detection": Kind("transformers-detector", "AutoModelForObjectDetection", _DETECTORS, _detection_loss, _detect),
    "segmentation": Kind(
        "transformers-segmenter",
        "AutoModelForSemanticSegmentation",
        _SEGMENTERS,
        _segmentation_loss,
        lambda *given: pixel_logits(*given).argmax(dim=1),
    ),
}


def segformer_tiny(classes: Sequence[str], channels: int = 1) -> TransformersNetwork:
    """Build a small SegFormer with 0.2 million fresh weights that learns from hundreds of images on a CPU.

    Args:
        channels: Number of planes of the images; see `TaskNetwork`.

    Raises:
        UserError: If a package is missing.

    References:
        Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers" (arXiv
        2105.15203).
    """
    require_transformers()
    from transformers import SegformerConfig

    config = SegformerConfig(
        num_channels=channels,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 48, 64],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=64,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    model = build_model(KINDS["segmentation"].model, config)
    return TransformersNetwork(
        "segmentation", model, LumaInput([0.5] * channels, [0.25] * channels), "segformer-tiny", channels
    )
