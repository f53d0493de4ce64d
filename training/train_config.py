"""What a user can set for a training, with defaults; configs/train-*.yaml are instances of it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..data import RunPairs
from ..data.pairs_section import PairsSection
from ..objectives.loss_section import LossSection
from ..objectives.metrics import BASKET, METRICS
from ..runtime.config import Count, NonNegative, Positive, Section

_SMALLEST = max(METRICS[name].smallest_side for name in BASKET)  # pixels, of an image that can be validated on


class DataSection(PairsSection):
    """Where pairs come from and how they are cut.

    Attributes:
        validation_pairs: Largest number of validation pairs of each folder, spread over its list.
    """

    crop: Annotated[int, Field(ge=16)] = 96
    validation_pairs: Count = 8

    def open_pairs(self, task: str, seed: int, folders: tuple[str, str] | None = None) -> RunPairs:
        """Open the pairs of a training; see `data.open_pairs`."""
        return self._open(
            task,
            folders=folders,
            minimum_size=max(self.crop, _SMALLEST),
            seed=seed,
            validation_pairs=self.validation_pairs,
        )


class TrainSection(Section):
    """The optimisation, by AdamW.

    Attributes:
        steps: how many.
        learning_rate: the largest; it rises to it over the warm-up and falls to a hundredth along a half cosine.
        warmup: steps over which the learning rate rises.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: decay of the moving average of the weights, which is what is validated and kept; from 0.1 at the first step
            it rises to this.
        precision: "auto" for mixed precision where the device has it (CUDA), or "float32".
        side_weight: what the distances of a refine network's two side images to their sources count beside the loss.
        validate_every: steps between two validations.
        checkpoint_every: steps between two checkpoints.
        images: validation pairs to show in TensorBoard and in pictures/examples.png.
    """

    steps: Count = 10_000
    learning_rate: Positive = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 200
    weight_decay: NonNegative = 1e-4
    clip: Positive = 5.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["auto", "float32"] = "auto"
    side_weight: NonNegative = 0.1
    validate_every: Count = 500
    checkpoint_every: Count = 200
    images: Annotated[int, Field(ge=0)] = 4

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"must be longer than the warm-up: warmup {self.warmup} >= steps {self.steps}")
        return self


class TrainConfig(Section):
    """One training.

    Attributes:
        run: the run folder.
        seed: of everything random.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        genotype: the network: a name in the zoo, a YAML file or a run folder.
        task: what is fused; None for the genotype's own.
        first_stage: run folder of the trained network whose output a refine network refines.
        init: weights to start from, a safetensors file or a run folder; None for fresh ones.
        data: where pairs come from.
        train: the optimisation.
        loss: weights of the terms of the fusion loss.
    """

    run: Path = Path("runs/train")
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    genotype: str = "tim_light"
    task: Literal["infrared-visible", "mri-ct", "mri-pet", "mri-spect", "multi-exposure", "multi-focus"] | None = None
    first_stage: Path | None = None
    init: Path | None = None
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    loss: LossSection = LossSection()
