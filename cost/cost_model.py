"""The cost of every network of a search space: a fixed part, and a share of each operator."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..genotypes import Genotype
from ..operators import build_network
from .budget import CostKind
from .deployment_target import DeploymentTarget
from .search_space import Choices, SearchSpace


@dataclass(frozen=True, eq=False)
class CostModel:
    """Predicts the cost of networks, and the expected cost of a distribution over networks.

    COST(p) = rest + sum over edges and candidates of p times the candidate's cost (ProxylessNAS, Cai et al., ICLR 2019,
    eq. 6, for any cost that adds up).

    Args:
        rest: The cost of a network without its operators, in the unit `kind`.
        candidates: What each candidate adds in a step of each cell, (cells, candidates) in float64.

    Example:
        >>> model = CostModel("ms", 7.0, torch.tensor([[1.0, 3.0]], dtype=torch.float64))
        >>> model.predict([[0, 1]])
        11.0
        >>> model.expected(torch.full((1, 2, 2), 0.5)).item()
        11.0
    """

    kind: CostKind
    rest: float
    candidates: Tensor

    def expected(self, probabilities: Tensor) -> Tensor:
        """Return the expected cost under (cells, steps, candidates) probabilities."""
        return self.rest + (probabilities * self.candidates.to(probabilities).unsqueeze(1)).sum()

    def predict(self, choices: Choices) -> float:
        """Return the cost of one network."""
        total = self.rest
        for costs, row in zip(self.candidates.tolist(), choices, strict=True):
            for index in row:
                total += costs[index]
        return total

    def cheapest(self, steps: int) -> Choices:
        """Return the network of least cost, for cells with this number of steps."""
        return [[index] * steps for index in self.candidates.argmin(1).tolist()]


def count_costs(kind: CostKind, space: SearchSpace, target: DeploymentTarget) -> CostModel:
    """Count what a network and each candidate in it cost, in FLOPs or params. The model is exact: counts add up."""

    def count(genotype: Genotype) -> float:
        return target.cost(kind, build_network(genotype))

    bare = space.bare
    rest = count(bare)
    rows: dict[tuple[str, int | None], list[float]] = {}
    for index, (cell, place) in enumerate(zip(bare.cells, space.places, strict=True)):
        if place not in rows:
            before, after = bare.cells[:index], bare.cells[index + 1 :]
            variants = [(*before, replace(cell, operators=(name,)), *after) for name in space.operators]
            rows[place] = [count(replace(bare, cells=cells)) - rest for cells in variants]
    candidates = torch.tensor([rows[place] for place in space.places], dtype=torch.float64)
    return CostModel(kind, float(rest), candidates)
