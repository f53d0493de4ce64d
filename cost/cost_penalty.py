"""The term that a search adds to its outer loss for what networks cost."""

from dataclasses import dataclass, field

from torch import Tensor

from .budget import Budget, CostKind
from .cost_model import CostModel, count_costs
from .deployment_target import DeploymentTarget
from .latency_model import measure_costs
from .latency_table import LatencyTable
from .search_space import Decisions, SearchSpace

_LOGGED: dict[CostKind, str] = {"ms": "latency_ms", "FLOPs": "flops", "params": "parameters"}


@dataclass(frozen=True, eq=False)
class CostPenalty:
    """A term of the outer loss: weight LAT + budget_weight max(0, COST / budget - 1).

    LAT is the expected latency, COST the expected cost in the unit of the budget. Where widths are searched, the second
    term is budget_weight (COST / budget - 1)²: quality grows with the cost, so a network far below the budget gives
    quality away (the absolute difference in TuNAS, Bender et al., CVPR 2020, eq. 2), and near the budget the slope is
    small beside that of the quality.

    Args:
        models: The cost models, by kind: of time where `weight` is above 0, and of the kinds of budget and front.
        weight: Lambda, the loss per millisecond.
        budget: The bound on the cost, if there is one.
        budget_weight: The loss at twice the budget.
        reached: Whether the budget is to be reached, and not only kept.
        table: The measurements that the model of time is made of.

    Example:
        >>> import torch
        >>> model = CostModel("ms", 30.0, torch.zeros(1, 2, dtype=torch.float64))
        >>> penalty = CostPenalty({"ms": model}, weight=0.1, budget=Budget("20ms", "ms", 20.0), budget_weight=4.0)
        >>> penalty.term(Decisions(torch.full((1, 1, 2), 0.5)))
        (tensor(5.), {'latency_ms': 30.0})
    """

    models: dict[CostKind, CostModel]
    weight: float
    budget: Budget | None
    budget_weight: float
    table: LatencyTable = field(default_factory=dict)
    reached: bool = False

    def term(self, probabilities: Decisions) -> tuple[Tensor, dict[str, float]]:
        """Return the term for networks that are drawn with these probabilities, a scalar, and the costs to log."""
        expected = {kind: model.expected(probabilities) for kind, model in self.models.items()}
        term = probabilities.operators.new_zeros(())
        if self.weight > 0:
            term = term + self.weight * expected["ms"]
        if self.budget is not None:
            excess = expected[self.budget.kind] / self.budget.amount - 1
            term = term + self.budget_weight * (excess.square() if self.reached else excess.clamp_min(0))
        return term, {_LOGGED[kind]: cost.item() for kind, cost in expected.items()}


def open_cost_penalty(
    space: SearchSpace,
    target: DeploymentTarget,
    *,
    weight: float,
    budget: Budget | None,
    budget_weight: float,
    front: CostKind | None = None,
    table: LatencyTable | None = None,
) -> CostPenalty | None:
    """Measure and count what the penalty needs.

    Args:
        front: A kind of cost whose model is needed besides.

    Returns:
        The penalty, or None where neither a weight nor a budget nor a front asks for one.

    Raises:
        UserError: If the cache cannot be read or written.

    Example:
        >>> import torch
        >>> space = SearchSpace(4, ("successive",), 1, ("identity", "dense_k3_d1"))
        >>> target = DeploymentTarget(16, 16, torch.device("cpu"))
        >>> budget = Budget("1kparams", "params", 1000.0)
        >>> open_cost_penalty(space, target, weight=0.0, budget=budget, budget_weight=1.0).models["params"].rest
        696.0
    """
    models: dict[CostKind, CostModel] = {}
    measured: LatencyTable = {}
    asked: tuple[CostKind | None, ...] = (
        "ms" if weight > 0 else None,
        None if budget is None else budget.kind,
        front,
    )
    for kind in dict.fromkeys(kind for kind in asked if kind is not None):
        if kind == "ms":
            models[kind], measured, _ = measure_costs(space, target, table=table)
        else:
            models[kind] = count_costs(kind, space, target)
    if not models:
        return None
    return CostPenalty(models, weight, budget, budget_weight, measured, reached=bool(space.width_options))
