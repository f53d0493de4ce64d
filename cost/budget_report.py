"""What a found network costs, against the budget of its search."""

from dataclasses import asdict, dataclass
from typing import Any

from ..genotypes import Genotype
from ..runtime.errors import UserError
from .budget import CostKind, format_cost, parse_budget


@dataclass(frozen=True)
class BudgetReport:
    """The cost of a network and the budget, as the provenance of a genotype holds them under `budget`.

    Args:
        asked: The budget as the user wrote it.
        predicted: The cost by the cost model, in the unit `kind`.
        measured: The cost as measured on the device, or counted.
        met: Whether the measured cost is within the budget.
        advice: Which setting would meet the budget; None if it is met.

    Example:
        >>> report = BudgetReport("20ms", "ms", 19.5, 20.3, met=False, advice="space.channels=4 would meet it (9 ms)")
        >>> print(report)
        20ms: predicted 19.5 ms, measured 20.3 ms
    """

    asked: str
    kind: CostKind
    predicted: float
    measured: float
    met: bool
    advice: str | None = None

    @classmethod
    def of(cls, genotype: Genotype) -> "BudgetReport | None":
        """Read the report of a genotype; None if its search had no budget."""
        fields: Any = genotype.provenance.get("budget")
        return None if fields is None else cls(**fields)

    def __str__(self) -> str:
        predicted, measured = (format_cost(self.kind, cost) for cost in (self.predicted, self.measured))
        return f"{self.asked}: predicted {predicted}, {'measured' if self.kind == 'ms' else 'counted'} {measured}"

    @property
    def provenance(self) -> dict[str, object]:
        """The plain data that a genotype holds."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def check(self) -> None:
        """Check that the network meets its budget.

        Raises:
            UserError: If it does not. The message says by how much, and which setting would help.
        """
        if not self.met:
            excess = self.measured - parse_budget(self.asked).amount
            measured, above = (format_cost(self.kind, cost) for cost in (self.measured, excess))
            raise UserError(
                f"the network that was found takes {measured}, {above} above cost.budget = {self.asked}; {self.advice}"
            )
