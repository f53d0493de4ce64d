"""What a user can set for a search, with defaults; configs/search-*.yaml are instances of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ..bilevel.options import Estimator, check_estimator_options
from ..cost.budget import Budget, parse_budget
from ..downstream.downstream_section import DownstreamSection
from ..genotypes import CellGenotype, Genotype, parse_operator
from ..objectives.loss_section import LossSection
from ..runtime.config import Count, Fraction, NonNegative, Positive, Section
from ..runtime.errors import UserError


class DataSection(Section):
    """Where pairs come from and how they are cut.

    Attributes:
        root: folder with the two image folders, and the labels of a downstream task; None for the embedded synthetic
            pairs.
        synthetic_pairs: how many scenes to make where `root` is None.
        crop: height and width of the training crops, in pixels.
        batch_size: crops in a batch, the same for weights and architecture.
        architecture: fraction of the training pairs that the architecture is scored on.
        validation: fraction of all pairs for validation, where the folder has no train.txt and val.txt.
        seed: says which pairs are for what, and draws the validation crops and the synthetic pairs; None for the run's.
        workers: processes that prepare batches; changes nothing but the speed.
        cache_megabytes: decoded pairs beyond this are read again when needed.
    """

    root: Path | None = None
    synthetic_pairs: Annotated[int, Field(ge=3)] = 96
    crop: Annotated[int, Field(ge=16)] = 64
    batch_size: Count = 4
    architecture: Fraction = 0.5
    validation: Fraction = 0.1
    seed: Annotated[int, Field(ge=0)] | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    cache_megabytes: Annotated[int, Field(ge=0)] = 2048

    def seed_of(self, run: int) -> int:
        """Return `seed`, or else that of the run."""
        return run if self.seed is None else self.seed


class SpaceSection(Section):
    """The networks to choose from: every step of every cell is one of the operators.

    Attributes:
        channels: feature maps between stem and head, even.
        cells: kind of each cell.
        steps: operators in each cell.
        operators: the candidates.
        norm: normalisation after pointwise convolutions.
        stem: "full", or "half" to work at half height and width.
        head: "direct" to paint the fused image, "envelope" to weigh the brighter and the darker source.
    """

    channels: Annotated[int, Field(ge=2, multiple_of=2)] = 16
    cells: Annotated[tuple[Literal["successive", "multi_scale", "decomposition"], ...], Field(min_length=1)] = (
        "successive",
        "successive",
    )
    steps: Count = 2
    operators: Annotated[tuple[str, ...], Field(min_length=2)] = (
        "dense_k3_d1",
        "dense_k5_d1",
        "residual_k3_d1",
        "residual_k5_d1",
        "dilated_k3_d2",
        "dilated_k5_d2",
        "separable_k3",
        "channel_attention_k3",
        "spatial_attention_k3",
        "spatial_attention_k5",
    )
    norm: Literal["batch", "group", "none"] = "batch"
    stem: Literal["full", "half"] = "full"
    head: Literal["direct", "envelope"] = "direct"

    @model_validator(mode="after")
    def _operators_exist_once(self) -> Self:
        for index, name in enumerate(self.operators):
            parse_operator(name, f"space.operators[{index}]")
            if name in self.operators[:index]:
                raise UserError(f"space.operators[{index}]: {name} is listed twice; remove one")
        return self

    def genotype(self, name: str, task: str, operators: Sequence[Sequence[str]]) -> Genotype:
        """Describe a network of the space.

        Args:
            name: of the network.
            task: what it fuses.
            operators: ids of the operators of each cell.

        Returns:
            The genotype.
        """
        return Genotype(
            name=name,
            task=task,
            network="fusion",
            channels=self.channels,
            cells=tuple(CellGenotype(kind, tuple(row)) for kind, row in zip(self.cells, operators, strict=True)),
            norm=self.norm,
            stem=self.stem,
            head=self.head,
        )

    @property
    def bare(self) -> Genotype:
        """A network of the cells, each with an identity as its only operator."""
        return self.genotype("bare", "infrared-visible", [("identity",)] * len(self.cells))


class SearchSection(Section):
    """The bilevel optimisation.

    Attributes:
        steps: iterations in all.
        warmup: iterations at the beginning that train the weights alone.
        estimator: how the hypergradient is computed.
        estimator_options: settings of the estimator, e.g. {clip: 5} of gauss_newton.
        mixture: "softmax", or "gumbel" for straight-through samples of one operator.
        temperature: of the mixture at the first and, decaying geometrically, at the last step.
        weight_learning_rate: of Adam, at the first step; decays to a tenth along a half cosine.
        weight_clip: largest norm of the weight gradient, and of that of a task network.
        architecture_learning_rate: of Adam on the logits.
        inner_loss: trains the weights, on the weight pairs.
        outer_loss: scores the architecture, on the architecture pairs, unless a downstream task does.
        checkpoint_every: steps between two checkpoints.
        validate_every: steps between two validations.
    """

    steps: Count = 2000
    warmup: Annotated[int, Field(ge=0)] = 200
    estimator: Estimator = "gauss_newton"
    estimator_options: dict[str, int | float] = Field(default_factory=dict)
    mixture: Literal["softmax", "gumbel"] = "softmax"
    temperature: tuple[Positive, Positive] = (1.0, 0.2)
    weight_learning_rate: Positive = 2e-3
    weight_clip: Positive = 5.0
    architecture_learning_rate: Positive = 1e-2
    inner_loss: LossSection = LossSection()
    outer_loss: LossSection = LossSection(intensity=0.5, gradient=0.4, ssim=0.1)
    checkpoint_every: Count = 100
    validate_every: Count = 200

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"must leave steps for the architecture: warmup {self.warmup} >= steps {self.steps}")
        check_estimator_options(self.estimator, self.estimator_options, "search.estimator_options")
        return self


def _check_budget(value: object) -> object:
    """Refuse what is no budget; a bare number is one without its unit."""
    if value is not None:
        parse_budget(str(value))
    return value


class CostSection(Section):
    """What a network may cost, and how its cost counts in the search; time is measured on this device where it counts.

    Attributes:
        weight: lambda, what a millisecond of a forward pass costs in the outer loss.
        budget: what the derived network may cost: a time like 90ms, operations like 5GFLOPs, or parameters like
            50kparams; None for no bound.
        budget_weight: what exceeding the budget by its own size costs in the outer loss.
        height: of the images that time and operations are meant for, in pixels.
        width: of the images that time and operations are meant for, in pixels.
    """

    weight: NonNegative = 0.0
    budget: Annotated[str | None, BeforeValidator(_check_budget)] = None
    budget_weight: NonNegative = 1.0
    height: Annotated[int, Field(ge=16)] = 480
    width: Annotated[int, Field(ge=16)] = 640

    @property
    def parsed_budget(self) -> Budget | None:
        """The budget as a number."""
        return None if self.budget is None else parse_budget(self.budget)


class SearchConfig(Section):
    """One search.

    Attributes:
        run: the run folder.
        seed: of everything random.
        seeds: how many searches `search_seeds` makes, with this seed and the next ones; `search` makes the first alone.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        task: what is fused; goes into the genotype.
        data: where pairs come from.
        space: the networks to choose from.
        search: the bilevel optimisation.
        cost: what a network may cost, and how that counts.
        downstream: the task network whose loss on the fused images scores the architecture instead of
            `search.outer_loss`; it learns along, from the first step on. None for fusion alone.
    """

    run: Path = Path("runs/search")
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: Count = 1
    device: str = "auto"
    task: Literal["infrared-visible"] = "infrared-visible"
    data: DataSection = DataSection()
    space: SpaceSection = SpaceSection()
    search: SearchSection = SearchSection()
    cost: CostSection = CostSection()
    downstream: DownstreamSection | None = None

    @model_validator(mode="after")
    def _task_network_has_enough_to_normalise(self) -> Self:
        if self.downstream is not None and self.data.batch_size == 1 and self.data.crop <= 32:
            raise ValueError("must have data.batch_size above 1 or data.crop above 32 for a task network to learn")
        return self
