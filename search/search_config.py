"""Config of a search; the shipped files are configs/search*.yaml."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ..bilevel.options import Estimator, check_estimator_options
from ..cost import Budget, parse_budget
from ..data.stage_config import BatchDataSection, TaskConfig, WholeNumber
from ..downstream.downstream_section import DownstreamSection
from ..objectives.loss_section import LossSection
from ..runtime.config import Count, Fraction, NonNegative, Positive, Section
from ..runtime.loop import HARMLESS
from .space_section import SpaceSection


class SearchDataSection(BatchDataSection):
    """The pairs of a search.

    Attributes:
        architecture: Fraction of the training pairs that score the architecture; the others train the weights.
        seed: Seed of the split of the pairs, the validation crops and the synthetic pairs; null for the run's seed.
    """

    # The largest crop that RoadScene has room for. Networks that see farther than the crops are large learn from their
    # borders, and fail on whole images: with 128 the search prefers such networks.
    crop: Annotated[int, Field(ge=16)] = 160
    batch_size: Count = 2
    architecture: Fraction = 0.5
    seed: WholeNumber | None = None

    def seed_of(self, run: int) -> int:
        """Return `seed`, or the seed of the run where it is null."""
        return run if self.seed is None else self.seed


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
        front: Further budgets of one unit, such as [5ms, 10ms]; for each, a network within it is kept, too: of networks
            whose widths were sampled in the search, the one that does best with their weights, else the most probable.
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


PROPOSED = 4
"""Number of networks that a search proposes for training by default."""


class VerifySection(Section):
    """The trainings at the end that choose among what the search proposes.

    Few long trainings tell more than many short ones: how well a network does on whole images, and what its size gains,
    shows late.

    Attributes:
        candidates: Number of networks that the search proposes and that are trained, beside as many random ones of
            the same cost and a plain one, which has the first operator of the space everywhere; 0 for none, so that
            the most probable network is the result. Null for 4, or for none with a downstream task, since the
            trainings have a fusion loss.
        rounds: Number of rounds; after each, the better half goes on, and is trained anew for twice as long.
        steps: Training steps in the first round.
        validation_pairs: Largest number of validation pairs of each folder that the trained networks are compared on.
    """

    candidates: Annotated[int, Field(ge=0, le=1000)] | None = None
    rounds: Annotated[int, Field(ge=1, le=10)] = 3
    steps: Count = 400
    validation_pairs: Count = 8


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
