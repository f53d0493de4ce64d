"""What a search pays for the cost of its networks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..genotypes import Genotype
from .budget import Budget, Kind
from .cost_model import CostModel, count_costs
from .latency import measure_space
from .latency_table import Table

LOGGED: dict[Kind, str] = {"ms": "latency_ms", "FLOPs": "flops", "params": "parameters"}


@dataclass(frozen=True, eq=False)
class Charges:
    """A term of the outer loss: weight LAT + budget_weight max(0, COST / budget - 1).

    Args:
        models: of the costs that count, by kind.
        weight: lambda, what an expected millisecond costs; above 0 only with a model of time.
        budget: what a network may cost; with a model of its kind.
        budget_weight: what exceeding the budget by its own size costs.
        table: what the model of time was made of.
    """

    models: dict[Kind, CostModel]
    weight: float
    budget: Budget | None
    budget_weight: float
    table: Table = field(default_factory=dict)

    def term(self, probabilities: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Charge for a mixture.

        Args:
            probabilities: (cells, steps, candidates).

        Returns:
            The term, a scalar, and the expected costs to log.
        """
        expected = {kind: model.expected(probabilities) for kind, model in self.models.items()}
        term = probabilities.new_zeros(())
        if self.weight > 0:
            term = term + self.weight * expected["ms"]
        if self.budget is not None:
            excess = expected[self.budget.kind] / self.budget.amount - 1
            term = term + self.budget_weight * excess.clamp_min(0)
        return term, {LOGGED[kind]: cost.item() for kind, cost in expected.items()}


def open_charges(
    bare: Genotype,
    operators: Sequence[str],
    *,
    weight: float,
    budget: Budget | None,
    budget_weight: float,
    height: int,
    width: int,
    known: Table | None,
    device: torch.device,
) -> Charges | None:
    """Measure or count what the networks of a space cost, as far as it counts.

    Args:
        bare: a network of these cells, each with an identity as its only operator.
        operators: ids of the candidates.
        weight: what a millisecond costs.
        budget: what a network may cost, or None.
        budget_weight: what exceeding the budget by its own size costs.
        height: of the images, in pixels.
        width: of the images, in pixels.
        known: milliseconds to reckon with; None for those of the device's cache.
        device: where to measure.

    Returns:
        The charges; None where nothing counts.
    """
    models: dict[Kind, CostModel] = {}
    table: Table = {}
    if weight > 0 or (budget is not None and budget.kind == "ms"):
        models["ms"], table, _ = measure_space(bare, operators, height, width, device, known=known)
    if budget is not None and budget.kind not in models:
        models[budget.kind] = count_costs(budget.kind, bare, operators, height, width)
    return Charges(models, weight, budget, budget_weight, table) if models else None
