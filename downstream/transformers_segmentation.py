"""Any of the segmentation networks of transformers as a task network, and a tiny SegFormer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.pair_batch import IGNORED, PairBatch
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
from .luma_input import LumaInput
from .network import TaskNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILIES = ("beit", "mobilenet_v2", "mobilevit", "mobilevitv2", "segformer", "upernet")
"""The kinds of segmentation networks that take images of any size that is a multiple of 32."""


class TransformersSegmenter(TaskNetwork):
    """A segmentation network of transformers that sees luma images and tells the classes of a data set apart.

    The images are padded on the right and at the bottom to multiples of 32, never resized. Whether batch normalisation
    learns is left to `train()` and `eval()`.

    Args:
        model: What `AutoModelForSemanticSegmentation` builds; its labels are the names of the mask values.
        inputs: What the model expects of its images.
        name: What the user called the network.
    """

    task = "segmentation"
    kind = "transformers-segmenter"

    def __init__(self, model: "PreTrainedModel", inputs: LumaInput, name: str) -> None:
        super().__init__()
        self.model, self.inputs, self.name = model, inputs, name
        self.classes = class_names(model.config)

    @classmethod
    def from_pretrained(cls, source: str | Path, classes: Sequence[str]) -> Self:
        """Open a saved segmentation network and fit it to the classes of a data set.

        Args:
            source: A folder, or the name of a published network, such as `nvidia/segformer-b0-finetuned-ade-512-512`.
            classes: Names of the mask values, the background's first.

        Returns:
            The network; what it knew of classes of the same names is kept, the other classes start afresh.

        Raises:
            UserError: If there is no such network, it cannot be used, or a package is missing.
        """
        require_transformers()
        from transformers import AutoModelForSemanticSegmentation

        folder = find_checkpoint(source)
        config = make_config(read_config(folder), FAMILIES, source)
        model = load_model(AutoModelForSemanticSegmentation, folder, config, classes)
        return cls(model, LumaInput.read(folder, channels_of(config)), str(source))

    @classmethod
    def from_specification(cls, specification: Mapping[str, Any]) -> Self:
        """Make a segmentation network anew, with fresh weights and without any file.

        Args:
            specification: As `specification` returns it.

        Raises:
            UserError: If its configuration is not valid, or a package is missing.
        """
        require_transformers()
        from transformers import AutoModelForSemanticSegmentation

        config = make_config(specification["config"], FAMILIES, specification["name"])
        model = build_model(AutoModelForSemanticSegmentation, config)
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

    def logits(self, images: Tensor) -> Tensor:
        """Compute how much speaks for each class at each pixel.

        Args:
            images: (N, 1, H, W) luma in [0, 1].

        Returns:
            (N, classes, H, W).
        """
        inputs = self.inputs(images)
        logits = self.model(inputs).logits  # coarser than the images
        height, width = images.shape[-2:]
        return F.interpolate(logits, size=inputs.shape[-2:], mode="bilinear")[..., :height, :width]

    def loss(self, images: Tensor, batch: PairBatch) -> Tensor:
        """Score images by how well their pixels are told apart: the cross entropy, averaged over what is not ignored.

        Args:
            images: (N, 1, H, W) luma in [0, 1]; what is learnt from, instead of the sources in `batch`.
            batch: With its masks.

        Returns:
            A scalar, differentiable by the images and the weights; 0 where all pixels are ignored.
        """
        assert batch.masks is not None
        total = F.cross_entropy(self.logits(images), batch.masks, ignore_index=IGNORED, reduction="sum")
        return total / (batch.masks != IGNORED).sum().clamp(min=1)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Tell the classes in images apart.

        Args:
            images: (N, 1, H, W) luma in [0, 1].

        Returns:
            (N, H, W) int64, a position in `classes` for each pixel.
        """
        return self.logits(images).argmax(dim=1)


def segformer_tiny(classes: Sequence[str]) -> TransformersSegmenter:
    """Build a small SegFormer with fresh weights that learns from hundreds of images on a CPU.

    Args:
        classes: Names of the mask values, the background's first.

    Returns:
        A network of 0.2 million parameters that takes luma as it is.

    Raises:
        UserError: If a package is missing.

    References:
        Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers" (arXiv
        2105.15203).
    """
    require_transformers()
    from transformers import AutoModelForSemanticSegmentation, SegformerConfig

    config = SegformerConfig(
        num_channels=1,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 48, 64],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=64,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    model = build_model(AutoModelForSemanticSegmentation, config)
    return TransformersSegmenter(model, LumaInput([0.5], [0.25]), "segformer-tiny")
