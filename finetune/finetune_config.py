"""Config of a finetuning; the shipped files are configs/finetune*.yaml."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..bilevel.options import Estimator, check_estimator_options
from ..data.corruptions import Corruption
from ..data.stage_config import BatchDataSection, Scale, TaskConfig
from ..downstream.downstream_section import DownstreamSection
from ..downstream.task_network_folder import OWN
from ..objectives.loss_section import LossSection
from ..runtime.config import Count, Fraction, NonNegative, Positive, Section


class FinetuneDataSection(BatchDataSection):
    """The pairs of a finetuning, with boxes or masks where it has a downstream task.

    Attributes:
        scale: Smallest and largest factor by which labelled pairs are enlarged before they are cut.
        validation_pairs: Largest number of validation pairs of each folder, spread over its list; null for all.
    """

    synthetic_pairs: Annotated[int, Field(ge=2, le=100_000)] = 200
    crop: Annotated[int, Field(ge=32)] = 128
    scale: Scale = (0.75, 1.5)
    batch_size: Count = 8
    validation: Fraction = 0.2
    validation_pairs: Count | None = None


class GuidingTaskSection(DownstreamSection):
    """The downstream task of the fused images, and its network.

    Attributes:
        colour: Whether the task network sees the fused images in colour, as they are saved, or their luma alone.
        frozen: Whether the task network keeps its weights, those of `init` or of a network that others trained; it then
            guides by "joint" or "lagrangian".
    """

    colour: bool = False
    frozen: bool = False


class GuidanceSection(Section):
    """How the downstream task guides the fusion.

    Attributes:
        strategy: How the networks are trained: "fusion" trains the fusion network by the fusion loss alone, without a
            downstream task; "frozen" keeps the fusion network and trains the task network on its images; "joint" adds
            both losses; "lagrangian" minimises the task's loss under a bound on the fusion loss; "learned_loss" trains
            the fusion network by a fusion loss whose weights of the two sources, in its terms `intensity` and `ssim`,
            are learned from the task (a loss without these terms gets `intensity` with weight 1); "detfusion"
            guides it by two detectors, one for each source, with shared attention; null for "lagrangian" with a
            downstream task and "fusion" without.
        images: Images of the task network under "frozen": "fused", "first", "second", "both" for a network that sees
            both sources, "average", "maximum", "laplacian", "blend" for a random mixture of the sources in each crop,
            or a folder with an image for every pair.
        weight: Weight of the task's loss beside the fusion loss, under "joint" and "detfusion".
        tolerance: Under "lagrangian", the fraction that may be given up of what the network at the start gains over the
            best method without a network, by the fusion loss on the validation pairs; 1 for nearly all of it.
        multiplier: Multiplier of the constraint at the start, under "lagrangian".
        multiplier_rate: Step size of the dual ascent, under "lagrangian".
        estimator: Estimator of the hypergradient, under "learned_loss".
        estimator_options: Settings of the estimator, such as {clip: 5} of gauss_newton.
        loss_learning_rate: Learning rate of the parameters of the fusion loss, under "learned_loss".
        detector_steps: Steps that train the two detectors of "detfusion" before the fusion network.
        content: Weight of the object-aware content loss of "detfusion".
        robust: Names of corruptions, of noise, blur, fog, shift and missing, for "joint" and "lagrangian". About every
            second crop has one of them, at a random severity, in one source; the fusion loss compares with clean ones.
    """

    strategy: Literal["fusion", "frozen", "joint", "lagrangian", "learned_loss", "detfusion"] | None = None
    images: str = "fused"
    weight: NonNegative = 1.0
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.1
    multiplier: NonNegative = 1.0
    multiplier_rate: Positive = 0.2
    estimator: Estimator = "gauss_newton"
    estimator_options: dict[str, int | float] = Field(default_factory=dict)
    loss_learning_rate: Positive = 1e-3
    detector_steps: Count = 1000
    content: NonNegative = 1.0
    robust: list[Corruption] = Field(default_factory=list)

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


class FinetuneSection(Section):
    """The optimisation, by AdamW.

    Attributes:
        steps: Number of optimiser steps of the fusion network.
        learning_rate: Largest learning rate of the fusion network. All learning rates rise over the warm-up and then
            fall to a hundredth along a half cosine.
        warmup: Steps over which the learning rates rise.
        weight_decay: Decoupled weight decay of the fusion network.
        clip: Largest norm of the gradient of the fusion network, and likewise of the task network.
        ema: Decay of the moving averages of the weights, which are validated and kept.
        validate_every: Steps between two validations.
        checkpoint_every: Steps between two checkpoints.
        images: Number of validation pairs in pictures/examples.png and TensorBoard.
    """

    scaled_by_steps: ClassVar[tuple[str, ...]] = ("warmup", "validate_every")

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


class FinetuneConfig(TaskConfig):
    """One finetuning.

    Attributes:
        init: Fusion network to start from: the name of a shipped one, the run folder of a training, a finetuning or a
            meta-initialisation, or hub:user/name.
        genotype: A fusion network with random weights instead: a name in the zoo, a YAML file or a run folder.
        data: Image pairs, and the crops that are cut from them.
        downstream: The task network that uses the fused images, and how it learns; null for none.
        guidance: How the downstream task guides the fusion.
        train: Settings of the optimisation, by AdamW.
        loss: Weights of the terms of the fusion loss, or the name of a loss; null for the loss of the task.

    Example:
        >>> FinetuneConfig().strategy, FinetuneConfig(downstream={"kind": "detection"}).strategy
        ('fusion', 'lagrangian')
    """

    steps_in: ClassVar[str] = "train"

    stage: Literal["finetune"] = "finetune"
    run: Path = Path("runs/finetune")
    init: str | None = "ivif-fast"
    genotype: str | None = None
    data: FinetuneDataSection = FinetuneDataSection()
    downstream: GuidingTaskSection | None = None
    guidance: GuidanceSection = GuidanceSection()
    train: FinetuneSection = FinetuneSection()
    loss: LossSection | None = None

    @property
    def strategy(self) -> str:
        """The strategy, by default the one that fits the downstream task."""
        return self.guidance.strategy or ("fusion" if self.downstream is None else "lagrangian")

    def guidance_provenance(self, classes: Sequence[str]) -> dict[str, object]:
        """Describe the task network and how it guides the fusion, in the provenance of a genotype.

        Args:
            classes: Names of the classes that the task network knows.
        """
        entries: dict[str, object] = {"strategy": self.strategy}
        if self.downstream is not None:
            entries = {"downstream": self.downstream.provenance(classes), **entries}
        if self.strategy == "frozen":
            entries["images"] = self.guidance.images
        if self.strategy == "learned_loss":
            entries["estimator"] = self.guidance.estimator
        return entries

    @model_validator(mode="after")
    def _strategy_fits_the_task(self) -> Self:
        strategy, kind = self.strategy, self.downstream and self.downstream.kind
        if strategy == "fusion" and kind:
            raise ValueError(
                f"must have a guidance.strategy for {kind}, such as lagrangian; the strategy fusion has no"
                " downstream task"
            )
        if strategy == "detfusion" and kind == "segmentation":
            raise ValueError("must have downstream.kind = detection for detfusion, which is guided by detectors")
        if strategy != "fusion" and not kind:
            raise ValueError(
                f"must have a downstream task for guidance.strategy = {strategy}; set downstream.kind to detection or"
                " segmentation"
            )
        return self

    @model_validator(mode="after")
    def _corrupted_pairs_are_used(self) -> Self:
        if self.guidance.robust and self.strategy not in ("joint", "lagrangian"):
            raise ValueError(
                f"must have guidance.strategy joint or lagrangian for guidance.robust, not {self.strategy}"
            )
        return self

    @model_validator(mode="after")
    def _frozen_network_has_weights(self) -> Self:
        section = self.downstream
        if section is not None and section.frozen and section.init is None and section.network in OWN.values():
            raise ValueError(f"must have downstream.init for a frozen network: {section.network} has random weights")
        return self

    @model_validator(mode="after")
    def _frozen_network_guides(self) -> Self:
        if self.downstream is not None and self.downstream.frozen and self.strategy not in ("joint", "lagrangian"):
            raise ValueError(
                f"must have guidance.strategy joint or lagrangian for downstream.frozen = true, not {self.strategy}"
            )
        return self

    @model_validator(mode="after")
    def _task_network_has_enough_to_normalise(self) -> Self:
        if self.downstream is not None and self.data.batch_size == 1 and self.data.crop <= 32:
            raise ValueError("must have data.batch_size above 1 or data.crop above 32 for a task network to learn")
        return self
