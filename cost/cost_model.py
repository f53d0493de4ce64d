"""The cost of every network of a search space: a fixed part, and a share of each operator."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from ..genotypes import Genotype
from ..operators import build_network, count_parameters
from ..operators.cells import Chain
from ..operators.counting import flops_of_modules
from .budget import CostKind
from .deployment_target import DeploymentTarget
from .search_space import Choices, Decisions, SearchSpace


@dataclass(frozen=True, eq=False)
class CostModel:
    """Predicts the cost of networks, and the expected cost of a distribution over networks.

    COST(p) = rest + sum over edges and candidates of p times the candidate's cost (ProxylessNAS, Cai et al., ICLR 2019,
    eq. 6, for any cost that adds up). Where widths are searched, the rest and the candidates' costs depend on them.

    Args:
        rest: The cost of a network without its operators, in the unit `kind`; a number, or in float64 one for each
            combination of widths, (options, options, ...) with a dimension for each level.
        candidates: What each candidate adds in a step of each cell, in float64: (cells, candidates), or (cells,
            options, candidates) for each width of the cell's level.
        levels: The level of each cell where widths are searched; otherwise empty.

    Example:
        >>> model = CostModel("ms", 7.0, torch.tensor([[1.0, 3.0]], dtype=torch.float64))
        >>> model.predict(Choices([[0, 1]]))
        11.0
        >>> model.expected(Decisions(torch.full((1, 2, 2), 0.5))).item()
        11.0
    """

    kind: CostKind
    rest: float | Tensor
    candidates: Tensor
    levels: tuple[int, ...] = ()

    def expected(self, probabilities: Decisions) -> Tensor:
        """Return the expected cost of networks that are drawn with these probabilities."""
        operators, widths = probabilities
        candidates = self.candidates.to(operators)
        if widths is None:
            return self.rest + (operators * candidates.unsqueeze(1)).sum()
        rest = torch.as_tensor(self.rest).to(operators)
        for row in widths:
            rest = torch.tensordot(row, rest, 1)
        of_cells = (widths[list(self.levels)].unsqueeze(-1) * candidates).sum(1)  # (cells, candidates)
        return rest + (operators * of_cells.unsqueeze(1)).sum()

    def at(self, widths: tuple[int, ...]) -> "CostModel":
        """Return the model of the networks with these widths, by their indices; itself where widths are fixed."""
        if not widths:
            return self
        of_cells = [self.candidates[cell, widths[level]] for cell, level in enumerate(self.levels)]
        return CostModel(self.kind, torch.as_tensor(self.rest)[widths].item(), torch.stack(of_cells))

    @property
    def combinations(self) -> list[tuple[int, ...]]:
        """All combinations of widths, by their indices; one that is empty where widths are fixed."""
        return list(product(*map(range, self.rest.shape))) if isinstance(self.rest, Tensor) else [()]

    def predict(self, choices: Choices) -> float:
        """Return the cost of one network."""
        model = self.at(choices.widths)
        total = float(model.rest)
        for costs, row in zip(model.candidates.tolist(), choices.operators, strict=True):
            for index in row:
                total += costs[index]
        return total

    def cheapest(self, steps: int) -> Choices:
        """Return the network of least cost, for cells with this number of steps."""
        networks = [
            Choices([[index] * steps for index in self.at(widths).candidates.argmin(1).tolist()], widths)
            for widths in self.combinations
        ]
        return min(networks, key=self.predict)


def count_costs(kind: CostKind, space: SearchSpace, target: DeploymentTarget) -> CostModel:
    """Count what a network and each candidate in it cost, in FLOPs or params. The model is exact: counts add up."""

    def count(genotype: Genotype) -> float:
        return target.cost(kind, build_network(genotype))

    if not space.width_options:
        bare = space.bare()
        candidates = torch.tensor(_of_operators(kind, space, bare, target), dtype=torch.float64)
        return CostModel(kind, float(count(bare)), candidates)
    rest = sum_of_parts(space, [count(bare) for bare in networks_of_parts(space)])
    # The operators of all levels at their widths of the same index.
    rows = [_of_operators(kind, space, space.bare(widths), target) for widths in zip(*space.width_options, strict=True)]
    candidates = torch.tensor(rows, dtype=torch.float64).transpose(0, 1)  # (cells, options, candidates)
    return CostModel(kind, rest, candidates, space.levels)


def _of_operators(kind: CostKind, space: SearchSpace, bare: Genotype, target: DeploymentTarget) -> list[list[float]]:
    """Count what each candidate costs in each cell; in a cell that the network lacks, nothing.

    They are counted in one network, whose cells have all candidates in a row.
    """
    names = [name for name in space.operators if name != "identity"]
    row = replace(bare, cells=tuple(replace(cell, operators=tuple(names)) for cell in bare.cells))
    network = build_network(row)
    flops = flops_of_modules(network, target.height, target.width, row.inputs) if kind == "FLOPs" else {}
    built = [cell for name, cells in network.named_children() if name.endswith("cells") for cell in cells.children()]
    paths = {module: path for path, module in network.named_modules()}
    costs: dict[tuple[str, int | None], list[float]] = {}
    for cell, module in zip(bare.cells, built, strict=True):
        chains = [child for child in module.children() if isinstance(child, Chain)]
        of_names = {
            name: sum(flops[paths[chain[k]]] if flops else count_parameters(chain[k]) for chain in chains)
            for k, name in enumerate(names)
        }
        costs[cell.kind, cell.level] = [float(of_names.get(name, 0)) for name in space.operators]
    return [costs.get(place, [0.0] * len(space.operators)) for place in space.places]


def networks_of_parts(space: SearchSpace) -> list[Genotype]:
    """List bare networks whose costs give those of all combinations of widths by `sum_of_parts`.

    What a level costs depends on its width and on that of the next coarser level, so it is enough to change two
    neighbours at a time.
    """
    return [space.bare(widths) for widths in _widths_of_parts(space)]


def sum_of_parts(space: SearchSpace, costs: Sequence[float]) -> Tensor:
    """Return the cost of the bare network of each combination of widths, (options, options, ...) in float64.

    With F(i, j) the cost where levels k and k + 1 have their widths of index i and j and all others the largest, and
    G(i) the same for one level, it is the sum of F over all neighbours minus the sum of G over the inner levels.

    Args:
        costs: The costs of `networks_of_parts`, in their order.
    """
    of_widths = dict(zip(_widths_of_parts(space), costs, strict=True))
    options, largest = space.width_options, space.bare().widths
    totals = []
    for widths in product(*options):
        total = 0.0
        for level in range(max(1, len(widths) - 1)):
            total += of_widths[_with(largest, widths, range(level, level + 2))]
        for level in range(1, len(widths) - 1):
            total -= of_widths[_with(largest, widths, range(level, level + 1))]
        totals.append(total)
    return torch.tensor(totals, dtype=torch.float64).view([len(of_level) for of_level in options])


def _widths_of_parts(space: SearchSpace) -> list[tuple[int, ...]]:
    largest, count = space.bare().widths, len(space.width_options)
    found: dict[tuple[int, ...], None] = {}
    for widths in product(*space.width_options):
        for level in range(max(1, count - 1)):
            found[_with(largest, widths, range(level, level + 2))] = None
    return list(found)


def _with(largest: tuple[int, ...], widths: tuple[int, ...], levels: range) -> tuple[int, ...]:
    """Replace the largest widths at some levels by others."""
    return tuple(widths[level] if level in levels else width for level, width in enumerate(largest))
