"""Config of a search; the shipped files are configs/search*.yaml."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ..bilevel.options import Estimator, check_estimator_options
from ..cost import Budget, SearchSpace, parse_budget
from ..data.stage_config import BatchDataSection, TaskConfig, WholeNumber
from ..downstream.downstream_section import DownstreamSection
from ..genotypes import parse_operator
from ..genotypes.genotype import MOST_LEVELS, MOST_OPERATORS, PYRAMID_HEADS, SOURCES
from ..objectives.loss_section import LossSection
from ..operators.width_supernet import WIDENED
from ..runtime.config import Count, Fraction, NonNegative, Positive, Section
from ..runtime.errors import UserError
from ..runtime.loop import HARMLESS

Width = int | tuple[int, ...]


def _widths(channels: int | tuple[Width, ...]) -> int | tuple[Width, ...]:
    levels = channels if isinstance(channels, tuple) else (channels,)
    options = [width if isinstance(width, tuple) else (width,) for width in levels]
    if not 1 <= len(options) <= MOST_LEVELS or any(width % 2 or width < 0 for widths in options for width in widths):
        raise ValueError(f"must be an even number from 2 on, or a list of 1 to {MOST_LEVELS} of them")
    for level, widths in enumerate(options):
        optional = level == 0 and isinstance(levels[0], tuple) and len(levels) > 1
        if min(widths, default=0) < 2 and not (optional and widths[:1] == (0,) and min(widths[1:], default=0) > 0):
            raise ValueError("must be an even number from 2 on; 0 only as the first to choose from at the finest level")
        if sorted(set(widths)) != list(widths):
            raise ValueError(f"must have numbers in rising order to choose from at a level, not {list(widths)}")
    if any(isinstance(width, tuple) and len(width) == 1 for width in levels):
        raise ValueError("must have at least two numbers to choose from at a level, or one number for every level")
    if len({isinstance(width, tuple) and len(width) for width in levels}) > 1:
        raise ValueError("must have one number for every level, or equally many numbers to choose from for every level")
    return channels


Channels = Annotated[int | tuple[Width, ...], AfterValidator(_widths)]

PRESETS: dict[str, SearchSpace] = {
    "pyramid": SearchSpace(
        channels=((0, 8, 16, 24), (8, 16, 24, 32), (16, 24, 32, 48), (16, 24, 32, 48)),
        cells=("stage",) * 4,
        steps=3,
        operators=(
            "identity",
            "plain_k3",
            "channel_attention_k3",
            "inverted_k3",
            "inverted_k5",
            "residual_k3_d1",
            "dilated_k3_d2",
        ),
        norm="none",
        stem="half",
        head="bands",
        levels=(0, 1, 2, 3),
    ),
    "tim": SearchSpace(
        channels=16,
        cells=("successive", "successive"),
        steps=2,
        operators=(
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
        ),
    ),
}
PRESETS["tim-refine"] = replace(
    PRESETS["tim"],
    cells=("successive",) * 4,
    sources=("first", "first", "second", "second"),
    merge="gated",
)
"""The search spaces that a config can start from."""


class SearchDataSection(BatchDataSection):
    """The pairs of a search.

    Attributes:
        architecture: Fraction of the training pairs that score the architecture; the others train the weights.
        seed: Seed of the split of the pairs, the validation crops and the synthetic pairs; null for the run's seed.
    """

    crop: Annotated[int, Field(ge=16)] = 128
    batch_size: Count = 3
    architecture: Fraction = 0.5
    seed: WholeNumber | None = None

    def seed_of(self, run: int) -> int:
        """Return `seed`, or the seed of the run where it is null."""
        return run if self.seed is None else self.seed


class SpaceSection(Section):
    """The search space: what a network is made of, and what is left to choose. A key that is null is as in the preset.

    Attributes:
        preset: Kind of networks: "pyramid" for pyramid networks whose widths, blocks and finest level are searched,
            "tim" for networks of one size whose operators are searched, as in TIM, or "tim-refine" for the refine
            networks that are TIM's second stage, behind a trained `first_stage`. Null for "tim"
            where channels is one number, and otherwise for "pyramid".
        channels: Feature maps, even. Of a pyramid network a list for the levels, from the finest, of half the height
            and width, to the coarsest: of each the number, or a list of equally many numbers to choose from, of which
            the first of the finest level may be 0, for networks without it. Otherwise one number.
        cells: Kind of each cell: "stage", "successive", "multi_scale" or "decomposition".
        levels: Level of each cell of a pyramid network, from 0, the finest, on.
        sources: Branch of each cell of a refine network, all "first" before all "second".
        merge: Merge of the branches of a refine network, "gated" or "concat".
        steps: Number of operators in each cell; in a stage the largest number, since `identity` leaves one out.
        operators: Ids of the candidates, such as residual_k3_d1.
        norm: Normalisation after pointwise convolutions: "batch", "group" or "none".
        stem: Resolution of the cells: "full", or "half" for half the height and width; "half" in a pyramid network.
        head: Output of the network: "direct" for the fused image itself, "envelope" for the weights of the brighter
            and the darker source; of a pyramid network "bands", or "sources" to take regions from one source, too.
    """

    preset: Literal["pyramid", "tim", "tim-refine"] | None = None
    channels: Channels | None = None
    cells: (
        Annotated[tuple[Literal["stage", "successive", "multi_scale", "decomposition"], ...], Field(min_length=1)]
        | None
    ) = None
    levels: tuple[WholeNumber, ...] | None = None
    sources: tuple[Literal["first", "second"], ...] | None = None
    merge: Literal["gated", "concat"] | None = None
    steps: Count | None = None
    operators: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    norm: Literal["batch", "group", "none"] | None = None
    stem: Literal["full", "half"] | None = None
    head: Literal["direct", "envelope", "bands", "sources"] | None = None

    @model_validator(mode="after")
    def _operators_exist_once(self) -> Self:
        space = self.search_space
        if len(space.cells) * space.steps > MOST_OPERATORS:
            raise ValueError(
                f"must have at most {MOST_OPERATORS} steps in all cells: {len(space.cells)} x {space.steps}"
            )
        for index, name in enumerate(space.operators):
            parse_operator(name, f"space.operators[{index}]")
            if name in space.operators[:index]:
                raise UserError(f"space.operators[{index}]: {name} is listed twice; remove one")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        space = self.search_space
        channels = space.channels
        pyramid = isinstance(channels, tuple)
        if self.base != "pyramid" and (pyramid or self.levels is not None):
            raise ValueError("must have preset: pyramid for a list of numbers in space.channels, or for space.levels")
        if self.base == "pyramid" and not pyramid:
            raise ValueError("must have a list of numbers in space.channels, one for each level, or preset: tim")
        if isinstance(channels, tuple):
            if len(space.levels) != len(space.cells):
                raise ValueError(
                    f"must have one of space.levels for each of the {len(space.cells)} cells of a pyramid network"
                )
            if max(space.levels) >= len(channels):
                raise ValueError(f"must have space.levels below the number of space.channels: {max(space.levels)}")
        for key, allowed in (("stem", ("half",)), ("head", PYRAMID_HEADS)):
            if (getattr(space, key) in allowed) != pyramid and (pyramid or key == "head"):
                words = " or ".join(allowed)
                raise ValueError(f"must have space.{key} = {words} in a pyramid network{'' if pyramid else ' alone'}")
        if space.width_options:
            self._check_widths(space)
        if self.base == "tim-refine":
            self._check_branches(space)
        elif self.sources is not None or self.merge is not None:
            raise ValueError("must have preset: tim-refine for space.sources or space.merge")
        return self

    def _check_branches(self, space: SearchSpace) -> None:
        """Check that a refine network has two branches, and nothing that it cannot have."""
        if len(space.sources) != len(space.cells):
            raise ValueError(
                f"must have one of space.sources for each of the {len(space.cells)} cells of a refine network"
            )
        if sorted(space.sources) != list(space.sources) or set(space.sources) != set(SOURCES):
            raise ValueError(
                "must have in space.sources all cells of the first branch before those of the second, and at least one"
                f" of each: {', '.join(space.sources)}"
            )
        for key, only in (("stem", "full"), ("head", "direct")):
            if getattr(space, key) != only:
                raise ValueError(f"must have space.{key} = {only} in a refine network")

    def _check_widths(self, space: SearchSpace) -> None:
        """Check that each width of a level is the first part of a larger one."""
        advice = "; or give one number for each level in space.channels"
        if others := sorted(set(space.cells) - {"stage", "successive"}):
            raise ValueError(f"must have stages or successive cells where widths are searched, not {others[0]}{advice}")
        if space.norm != "none":
            raise ValueError(f"must have space.norm = none where widths are searched, not {space.norm}{advice}")
        others = [name for name in space.operators if parse_operator(name).kind not in WIDENED]
        if others:
            raise ValueError(f"must leave out space.operators {others[0]}, which has no narrower part{advice}")
        if space.width_options[0][0] == 0 and not any(space.levels):
            raise ValueError("must have a cell at a coarser level where the finest level may have 0 of space.channels")

    @property
    def base(self) -> str:
        """The name of the preset in use."""
        return self.preset or ("tim" if isinstance(self.channels, int) else "pyramid")

    @property
    def search_space(self) -> SearchSpace:
        """The space as plain values, those of the preset where a key is null."""
        preset = PRESETS[self.base]
        given = {key: value for key, value in self.model_dump(exclude={"preset"}).items() if value is not None}
        channels = given.get("channels")
        if isinstance(channels, tuple):  # a stage for each level
            given = {"cells": ("stage",) * len(channels), "levels": tuple(range(len(channels)))} | given
        return replace(preset, **given)


class SearchSection(Section):
    """The bilevel optimisation.

    Attributes:
        steps: Number of iterations in the whole search.
        warmup: Iterations at the beginning that train the weights alone.
        estimator: Estimator of the hypergradient: first_order, gauss_newton, finite_difference, unrolled, neumann or
            conjugate_gradient.
        estimator_options: Settings of the estimator, such as {clip: 5} of gauss_newton.
        mixture: Mixture of the candidates: "gumbel" for straight-through samples of one network, whose weights tell
            networks apart, or "softmax".
        temperature: Temperature of the mixture at the first and at the last step; it decays geometrically.
        weight_learning_rate: Learning rate of the weights (Adam) at the first step; it decays to a tenth along a half
            cosine.
        weight_clip: Largest norm of the gradient of the weights, and likewise of a task network.
        architecture_learning_rate: Learning rate of the architecture logits (Adam).
        inner_loss: Fusion loss that trains the weights on the weight pairs; null for the loss by which the task is
            trained.
        outer_loss: Fusion loss that scores the architecture on the architecture pairs, unless a downstream task does;
            null for the loss by which the task is trained.
        checkpoint_every: Steps between two checkpoints.
        validate_every: Steps between two validations.
    """

    scaled_by_steps: ClassVar[tuple[str, ...]] = ("warmup", "validate_every")

    steps: Count = 1200
    warmup: Annotated[int, Field(ge=0)] = 300
    estimator: Estimator = "first_order"
    estimator_options: dict[str, int | float] = Field(default_factory=dict)
    mixture: Literal["gumbel", "softmax"] = "gumbel"
    temperature: tuple[Positive, Positive] = (1.0, 0.2)
    weight_learning_rate: Positive = 2e-3
    weight_clip: Positive = 5.0
    architecture_learning_rate: Positive = 1e-2
    inner_loss: LossSection | None = None
    outer_loss: LossSection | None = None
    checkpoint_every: Count = 100
    validate_every: Count = 200

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"must leave steps for the architecture: warmup {self.warmup} >= steps {self.steps}")
        check_estimator_options(self.estimator, self.estimator_options, "search.estimator_options")
        return self


def _check_budget(value: object) -> object:
    """Refuse a value that is not a budget, such as a number without a unit."""
    if value is not None:
        parse_budget(str(value))
    return value


def _budgets(value: object) -> object:
    """Split a text like "5ms,10ms", and check each part."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, (list, tuple)):
        return value
    for budget in value:
        _check_budget(budget)
    return tuple(value)


class CostSection(Section):
    """The cost of a network in the outer loss, and its budget. Times are measured on the device of the search.

    Attributes:
        weight: Weight of a millisecond of the expected forward pass in the outer loss.
        budget: Largest cost of the network, without its first stage: a time like 90ms, operations like 5GFLOPs, or
            parameters like 50kparams; null for no bound.
        budget_weight: Penalty in the outer loss for twice the budget. It grows linearly with the excess; where widths
            are searched, with the square of the difference.
        front: Further budgets of one unit, such as [5ms, 10ms]; for each, the most probable network within it is kept,
            too.
        height: Height in pixels of the images for which time and operations count.
        width: Width in pixels of the images for which time and operations count.
    """

    weight: NonNegative = 0.0
    budget: Annotated[str | None, BeforeValidator(_check_budget)] = None
    budget_weight: NonNegative = 1.0
    front: Annotated[tuple[str, ...], BeforeValidator(_budgets)] = ()
    height: Annotated[int, Field(ge=16, le=65535)] = 480
    width: Annotated[int, Field(ge=16, le=65535)] = 640

    @property
    def parsed_budget(self) -> Budget | None:
        """The budget as a number."""
        return None if self.budget is None else parse_budget(self.budget)

    @property
    def parsed_front(self) -> tuple[Budget, ...]:
        """The budgets of the front as numbers, the least first."""
        return tuple(sorted(map(parse_budget, self.front), key=lambda budget: budget.amount))

    @model_validator(mode="after")
    def _front_has_one_unit(self) -> Self:
        budgets = self.parsed_front
        if len({budget.kind for budget in budgets}) > 1:
            raise ValueError(f"must have one unit in cost.front: {', '.join(self.front)}")
        if len({budget.amount for budget in budgets}) < len(budgets):
            raise ValueError(f"must have each budget once in cost.front: {', '.join(self.front)}")
        return self


HARMLESS_OF_SEEDS = (*HARMLESS, "search.checkpoint_every", "seeds")
"""Keys that may change when searches with several seeds are resumed."""

VERIFY_KEYS = ("verify.candidates", "verify.rounds", "verify.steps", "verify.validation_pairs")


PROPOSED = 8
"""Number of networks that a search proposes for training by default."""


class VerifySection(Section):
    """The trainings at the end that choose among what the search proposes.

    Attributes:
        candidates: Number of networks that the search proposes and that are trained, beside as many random ones of
            the same cost; 0 for none, so that the most probable network is the result. Null for 8, or for none with a
            downstream task, since the trainings have a fusion loss.
        rounds: Number of rounds; after each, the better half goes on, and is trained anew for twice as long.
        steps: Training steps in the first round.
        validation_pairs: Largest number of validation pairs of each folder that the trained networks are compared on.
    """

    candidates: Annotated[int, Field(ge=0, le=1000)] | None = None
    rounds: Annotated[int, Field(ge=1, le=10)] = 3
    steps: Count = 200
    validation_pairs: Count = 6


class SearchConfig(TaskConfig):
    """One search.

    Attributes:
        seeds: Number of searches, with the seeds `seed`, `seed` + 1 and so on.
        data: Image pairs, and the crops that are cut from them.
        space: The networks to choose from.
        first_stage: Run folder of the trained network whose output a refine network refines.
        search: Settings of the bilevel optimisation.
        cost: The cost of a network in the outer loss, and its budget.
        verify: The trainings at the end that choose among what the search proposes.
        downstream: The task network whose loss on the fused images scores the architecture instead of
            `search.outer_loss`; null for none.

    Example:
        >>> SearchConfig(task="mri-ct").search.estimator
        'first_order'
    """

    steps_in: ClassVar[str] = "search"

    stage: Literal["search"] = "search"
    run: Path = Path("runs/search")
    task: str = "infrared-visible"
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    data: SearchDataSection = SearchDataSection()
    space: SpaceSection = SpaceSection()
    first_stage: Path | None = None
    search: SearchSection = SearchSection()
    cost: CostSection = CostSection()
    verify: VerifySection = VerifySection()
    downstream: DownstreamSection | None = None

    @property
    def candidates(self) -> int:
        """The number of networks that the search proposes for training; 0 without verification."""
        usual = 0 if self.downstream is not None else PROPOSED
        return usual if self.verify.candidates is None else self.verify.candidates

    @model_validator(mode="after")
    def _verified_by_the_fusion_loss(self) -> Self:
        if self.verify.candidates and self.downstream is not None:
            raise ValueError("must have verify.candidates = 0 with a downstream task: trainings have the fusion loss")
        return self

    @model_validator(mode="after")
    def _front_of_one_search(self) -> Self:
        if self.cost.front and self.seeds > 1:
            raise ValueError("must have cost.front empty or seeds = 1: a front is that of one search")
        return self

    @model_validator(mode="after")
    def _task_network_has_enough_to_normalise(self) -> Self:
        if self.downstream is not None and self.data.batch_size == 1 and self.data.crop <= 32:
            raise ValueError("must have data.batch_size above 1 or data.crop above 32 for a task network to learn")
        return self
