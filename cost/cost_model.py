"""What networks of a search space cost: a fixed part and a share of every edge's operator."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..genotypes import CellGenotype, Genotype
from ..operators import build_network, count_flops, count_parameters
from .budget import Kind

Choices = list[list[int]]  # for each cell and step, the index of the candidate


@dataclass(frozen=True, eq=False)
class CostModel:
    """COST(p) = rest + sum over edges and candidates of p times the candidate's cost.

    (ProxylessNAS, Cai et al., ICLR 2019, eq. 6, for any cost that adds up.)

    Args:
        kind: what is counted; the unit of the numbers.
        rest: cost of the network without its operators.
        candidates: (cells, candidates), what a candidate adds in each step of a cell, in float64.
    """

    kind: Kind
    rest: float
    candidates: Tensor

    def expected(self, probabilities: Tensor) -> Tensor:
        """Return the expected cost under (cells, steps, candidates) probabilities."""
        return self.rest + (probabilities * self.candidates.to(probabilities).unsqueeze(1)).sum()

    def of(self, choices: Choices) -> float:
        """Return the cost of a network."""
        total = self.rest
        for costs, row in zip(self.candidates.tolist(), choices, strict=True):
            for index in row:
                total += costs[index]
        return total

    def cheapest(self, steps: int) -> Choices:
        """Return the choices of least cost for cells of so many steps."""
        return [[index] * steps for index in self.candidates.argmin(1).tolist()]


def count(kind: Kind, network: nn.Module, height: int, width: int) -> int:
    """Count the operations ("FLOPs", for a pair of images of this size) or the parameters ("params") of a network."""
    return count_flops(network, height, width) if kind == "FLOPs" else count_parameters(network)


def count_costs(kind: Kind, bare: Genotype, operators: Sequence[str], height: int, width: int) -> CostModel:
    """Count what a network and each candidate in it cost, exactly: operations and parameters add up.

    Args:
        kind: "FLOPs" or "params".
        bare: a network of these cells, each with an identity as its only operator.
        operators: ids of the candidates.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        The model.
    """

    def counted(genotype: Genotype) -> int:
        return count(kind, build_network(genotype), height, width)

    rest = counted(bare)
    rows: dict[str, list[int]] = {}
    for index, cell in enumerate(bare.cells):
        if cell.kind not in rows:
            before, after = bare.cells[:index], bare.cells[index + 1 :]
            rows[cell.kind] = [
                counted(replace(bare, cells=(*before, CellGenotype(cell.kind, (name,)), *after))) - rest
                for name in operators
            ]
    return CostModel(kind, float(rest), torch.tensor([rows[cell.kind] for cell in bare.cells], dtype=torch.float64))
