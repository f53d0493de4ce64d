"""What the derived network costs, against the budget it was asked to meet."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ..genotypes import Genotype
from ..runtime.errors import UserError
from ..search.discretise import choose_within
from .budget import Budget, Kind, format_cost, parse_budget
from .cost_model import Choices, CostModel

TRIES = 5
MARGIN = 0.98  # of what a measurement leaves, so that the next network does not miss the budget by as little again


@dataclass(frozen=True)
class Spending:
    """What a network costs, as its provenance says under `budget`.

    Attributes:
        asked: the budget as the user wrote it.
        kind: what is counted; the unit of the numbers.
        predicted: by the model of costs.
        measured: on the device, or counted.
        met: whether the measured cost is within the budget.
        advice: which setting would do, if it is not.
    """

    asked: str
    kind: Kind
    predicted: float
    measured: float
    met: bool
    advice: str | None = None

    @classmethod
    def of(cls, genotype: Genotype) -> "Spending | None":
        """Read what a genotype's provenance says; None if there was no budget."""
        said: Any = genotype.provenance.get("budget")
        return None if said is None else cls(**said)

    def __str__(self) -> str:
        predicted, measured = (format_cost(self.kind, cost) for cost in (self.predicted, self.measured))
        return f"{self.asked}: predicted {predicted}, {'measured' if self.kind == 'ms' else 'counted'} {measured}"

    @property
    def provenance(self) -> dict[str, object]:
        """The plain data that a genotype keeps."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def check(self) -> None:
        """Check that the network meets its budget.

        Raises:
            UserError: it does not; says by how much, and which setting would help.
        """
        if not self.met:
            excess = self.measured - parse_budget(self.asked).amount
            measured, above = (format_cost(self.kind, cost) for cost in (self.measured, excess))
            raise UserError(
                f"the network that was found takes {measured}, {above} above cost.budget = {self.asked}; {self.advice}"
            )


def choose_measured(
    probabilities: Tensor, model: CostModel, budget: Budget, measure: Callable[[Choices], float]
) -> tuple[Choices, float]:
    """Choose the most probable network that meets a budget as measured, not only as predicted.

    Where a network takes more than the budget, what the next one may take by prediction is cut down in proportion.

    Args:
        probabilities: (cells, steps, candidates).
        model: predicts costs.
        budget: the bound.
        measure: says what a network really costs.

    Returns:
        For each cell and step, the index of the candidate, and the measured cost; if a few tries meet the budget by
        none, those of the network that missed it by least.
    """
    allowed = budget.amount
    tried: list[tuple[float, Choices]] = []
    for remaining in reversed(range(TRIES)):
        choices = choose_within(probabilities, model, allowed) if remaining else model.cheapest(probabilities.shape[1])
        if choices in (before for _, before in tried):
            break
        cost = measure(choices)
        tried.append((cost, choices))
        if cost <= budget.amount:
            break
        allowed = MARGIN * min(allowed, model.of(choices)) * budget.amount / cost
    cost, choices = min(tried)
    return choices, cost
