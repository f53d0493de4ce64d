"""What a user can set for a training, with defaults; configs/train-*.yaml are instances of it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..objectives.loss_section import LossSection
from ..runtime.config import Count, Fraction, NonNegative, Positive, Section


class DataSection(Section):
    """Where pairs come from and how they are cut.

    Attributes:
        root: folder with the two image folders, or a list of such folders to mix; None for the embedded synthetic
            scenes.
        shares: how often each folder's pairs come, relative to the others; None for all folders equally often.
        synthetic_pairs: how many scenes to make where `root` is None.
        crop: height and width of the training crops, in pixels; they are mirrored at random.
        batch_size: crops in a batch.
        validation: fraction of a folder's pairs for validation, where it has no train.txt and val.txt.
        validation_pairs: largest number of validation pairs of each folder; they are spread over its list.
        workers: processes that prepare batches; changes nothing but the speed.
        cache_megabytes: decoded pairs of each folder beyond this are read again when needed.
    """

    root: Path | Annotated[tuple[Path, ...], Field(min_length=1)] | None = None
    shares: tuple[Positive, ...] | None = None
    synthetic_pairs: Annotated[int, Field(ge=2)] = 96
    crop: Annotated[int, Field(ge=16)] = 96
    batch_size: Count = 4
    validation: Fraction = 0.1
    validation_pairs: Count = 8
    workers: Annotated[int, Field(ge=0)] = 0
    cache_megabytes: Annotated[int, Field(ge=0)] = 2048

    @property
    def roots(self) -> tuple[Path | None, ...]:
        """The folders, or None alone for synthetic scenes."""
        return self.root if isinstance(self.root, tuple) else (self.root,)

    @model_validator(mode="after")
    def _a_share_for_each_folder(self) -> Self:
        if self.shares is not None and len(self.shares) != len(self.roots):
            raise ValueError(f"must have one of data.shares for each folder: {len(self.shares)} for {len(self.roots)}")
        if len(set(self.roots)) != len(self.roots):
            raise ValueError("must name each folder of data.root once")
        return self


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
