"""What a user can set for a finetuning, with defaults; configs/finetune-*.yaml are instances of it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..bilevel.options import Estimator, check_estimator_options
from ..downstream.downstream_section import DownstreamSection
from ..objectives.loss_section import LossSection
from ..runtime.config import Count, Fraction, NonNegative, Positive, Section


class DataSection(Section):
    """Where labelled pairs come from and how they are cut.

    Attributes:
        root: folder with the two image folders and `boxes/` or `label/`; None for the embedded synthetic scenes.
        synthetic_pairs: how many scenes to make where `root` is None.
        crop: height and width of the training crops, in pixels; they are mirrored at random.
        scale: smallest and largest factor by which a pair is made larger before it is cut.
        batch_size: crops in a batch.
        validation: fraction of the pairs for validation, where the folder has no train.txt and val.txt.
        validation_pairs: largest number of validation pairs, spread over the list; None for all.
        workers: processes that prepare batches; changes nothing but the speed.
        cache_megabytes: decoded pairs beyond this are read again when needed.
    """

    root: Path | None = None
    synthetic_pairs: Annotated[int, Field(ge=2)] = 200
    crop: Annotated[int, Field(ge=32)] = 128
    scale: tuple[Positive, Positive] = (0.75, 1.5)
    batch_size: Count = 8
    validation: Fraction = 0.2
    validation_pairs: Count | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    cache_megabytes: Annotated[int, Field(ge=0)] = 2048

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"must have the smaller of data.scale first: {self.scale[0]:g} > {self.scale[1]:g}")
        return self

    @model_validator(mode="after")
    def _task_network_has_enough_to_normalise(self) -> Self:
        if self.batch_size == 1 and self.crop <= 32:
            raise ValueError("must have data.batch_size above 1 or data.crop above 32 for a task network to learn")
        return self


class GuidanceSection(Section):
    """How the task guides the fusion.

    Attributes:
        strategy: "frozen" leaves the fusion network alone and trains the task network on its images; "joint" adds both
            losses; "lagrangian" minimises the task's loss under a bound on the fusion loss; "learned_loss" trains the
            fusion network by a fusion loss whose weights of the two sources are learnt from the task; "detfusion"
            guides it by two detectors, one for each source, with shared attention.
        images: what the task network sees where the strategy is "frozen": "fused", "first", "second", "average",
            "blend" for another mixture of the sources in each crop, or a folder with an image for every pair.
        weight: of the task's loss beside the fusion loss, in "joint" and "detfusion".
        tolerance: of "lagrangian": the part by which the fusion loss may exceed that of the network it starts from.
        multiplier: of "lagrangian": at the start.
        multiplier_rate: of "lagrangian": step size of the dual ascent.
        estimator: of "learned_loss": how the hypergradient is computed.
        estimator_options: settings of the estimator, e.g. {clip: 5} of gauss_newton.
        loss_learning_rate: of "learned_loss": of the parameters of the fusion loss.
        detector_steps: of "detfusion": steps that train the two detectors, before those of the fusion network.
        content: of "detfusion": weight of the object-aware content loss.
    """

    strategy: Literal["frozen", "joint", "lagrangian", "learned_loss", "detfusion"] = "joint"
    images: str = "fused"
    weight: NonNegative = 1.0
    tolerance: NonNegative = 0.05
    multiplier: NonNegative = 0.1
    multiplier_rate: Positive = 0.5
    estimator: Estimator = "gauss_newton"
    estimator_options: dict[str, int | float] = Field(default_factory=dict)
    loss_learning_rate: Positive = 1e-3
    detector_steps: Count = 1000
    content: NonNegative = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_estimator_options(self.estimator, self.estimator_options, "guidance.estimator_options")
        if self.strategy == "learned_loss" and self.estimator == "first_order":
            raise ValueError(
                "must have another guidance.estimator for learned_loss: the task's loss depends on the fusion loss"
                " through the trained network alone, which first_order leaves out; choose gauss_newton"
            )
        if self.images != "fused" and self.strategy != "frozen":
            raise ValueError(f"must be guidance.strategy=frozen to learn on {self.images} images")
        return self


class TrainSection(Section):
    """The optimisation, by AdamW.

    Attributes:
        steps: how many.
        learning_rate: of the fusion network, the largest; it rises to it over the warm-up and falls to a hundredth
            along a half cosine, as does that of the task network.
        warmup: steps over which the learning rates rise.
        weight_decay: of the fusion network.
        clip: largest norm of the gradient of the fusion network, and of that of the task network.
        ema: decay of the moving averages of the weights, which are what is validated and kept.
        validate_every: steps between two validations.
        checkpoint_every: steps between two checkpoints.
        images: validation pairs to show in TensorBoard and in pictures/examples.png.
    """

    steps: Count = 2000
    learning_rate: Positive = 2e-3
    warmup: Annotated[int, Field(ge=0)] = 50
    weight_decay: NonNegative = 1e-4
    clip: Positive = 5.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    validate_every: Count = 250
    checkpoint_every: Count = 100
    images: Annotated[int, Field(ge=0)] = 4

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"must be longer than the warm-up: warmup {self.warmup} >= steps {self.steps}")
        return self


class FinetuneConfig(Section):
    """One finetuning.

    Attributes:
        run: the run folder.
        seed: of everything random.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        init: fusion network to start from: a shipped one's name, or a run folder, such as a meta-initialisation's.
        genotype: a fusion network with fresh weights instead: a name in the zoo, a YAML file or a run folder.
        data: where labelled pairs come from.
        task: what the fused image is for.
        guidance: how that guides the fusion.
        train: the optimisation.
        loss: weights of the terms of the fusion loss.
    """

    run: Path = Path("runs/finetune")
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    init: str | None = "ivif-fast"
    genotype: str | None = None
    data: DataSection = DataSection()
    task: DownstreamSection = DownstreamSection()
    guidance: GuidanceSection = GuidanceSection()
    train: TrainSection = TrainSection()
    loss: LossSection = LossSection()
