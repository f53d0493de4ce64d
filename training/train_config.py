"""Config of a training; the shipped files are configs/train*.yaml."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..data.stage_config import BatchDataSection, Scale, TaskConfig
from ..objectives.loss_section import LossSection
from ..runtime.config import Count, NonNegative, Positive, Section


class TrainDataSection(BatchDataSection):
    """The pairs of a training.

    Attributes:
        crop: Height and width of the training crops in pixels. Where a pair is smaller, down to half of this and to 64
            pixels, the crops of its batch are as small.
        scale: Smallest and largest factor by which pairs are zoomed at random before they are cut, which makes more of
            few pairs; null for their own size.
        batch_size: Crops in a batch, over all processes. Crops are mirrored at random.
        validation_pairs: Largest number of validation pairs of each folder; they are spread over its list.
    """

    crop: Annotated[int, Field(ge=16)] = 128
    scale: Scale | None = None
    batch_size: Count = 6
    validation_pairs: Count = 8

    @property
    def crops(self) -> dict[str, Any]:
        """The arguments of `RunPairs.batches` that follow from the section alone."""
        return super().crops | {"scale": self.scale}


class TrainSection(Section):
    """The optimisation, by AdamW.

    Attributes:
        steps: Number of optimiser steps in the whole run.
        learning_rate: Largest learning rate; it rises over the warm-up and then falls to a hundredth along a half
            cosine.
        warmup: Steps over which the learning rate rises.
        weight_decay: Decoupled weight decay of AdamW.
        clip: Largest norm of the gradient; a longer gradient is scaled down to it.
        ema: Decay of the moving average of the weights, which is validated and kept; it rises to this value from 0.1
            at the first step.
        precision: Arithmetic of the networks: "auto" for mixed precision where the device has it (CUDA), or "float32".
        side_weight: Weight of the distances of a refine network's two side images from their sources.
        validate_every: Steps between two validations.
        checkpoint_every: Steps between two checkpoints.
        images: Number of validation pairs in pictures/examples.png and TensorBoard.
    """

    scaled_by_steps: ClassVar[tuple[str, ...]] = ("warmup", "validate_every")

    steps: Count = 6000
    learning_rate: Positive = 2e-3
    warmup: Annotated[int, Field(ge=0)] = 100
    weight_decay: NonNegative = 1e-4
    clip: Positive = 2.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    precision: Literal["auto", "float32"] = "auto"
    side_weight: NonNegative = 0.1
    validate_every: Count = 1000
    checkpoint_every: Count = 200
    images: Annotated[int, Field(ge=0)] = 4

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"must be longer than the warm-up: warmup {self.warmup} >= steps {self.steps}")
        return self


class TrainConfig(TaskConfig):
    """One training.

    Attributes:
        genotype: The network: a name in the zoo, a YAML file or a run folder.
        first_stage: Run folder of the trained network whose output a refine network refines.
        init: Weights to start from, a safetensors file or a run folder; null for random ones.
        data: Image pairs, and the crops that are cut from them.
        train: Settings of the optimisation, by AdamW.
        loss: Weights of the terms of the fusion loss, or the name of a loss; null for the loss of the task.

    Example:
        >>> TrainConfig(task="mri-ct").data.crop
        128
    """

    steps_in: ClassVar[str] = "train"

    stage: Literal["train"] = "train"
    run: Path = Path("runs/train")
    genotype: str = "ivif-fast"
    first_stage: Path | None = None
    init: Path | None = None
    data: TrainDataSection = TrainDataSection()
    train: TrainSection = TrainSection()
    loss: LossSection | None = None
