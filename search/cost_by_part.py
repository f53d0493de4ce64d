"""What each part of a network costs, and which parts a search decided."""

from typing import NamedTuple

from torch import nn

from ..genotypes import CellGenotype, Genotype
from ..genotypes.genotype import CELL_KINDS
from ..operators import parameter_sizes
from ..operators.cells import Chain
from ..operators.counting import flops_of_modules


class Part(NamedTuple):
    """A part of a network.

    Attributes:
        name: What it is, such as "stem" or "cell 1, step 2".
        flops: Its floating-point operations for a pair of images.
        parameters: Number of elements of its parameters.
        operator: The id of the operator that a search chose for it; None for what is the same in all networks.
    """

    name: str
    flops: int
    parameters: int
    operator: str | None = None


def cost_by_part(genotype: Genotype, network: nn.Module, height: int, width: int) -> list[Part]:
    """Divide a network into parts, whose costs sum up to those of the network, in the order in which it lists them.

    A cell has a part for each of its steps, at all sizes and in all bands, and one for the layers around them.

    Args:
        network: The network of the genotype.
        height: Height in pixels of the images for which operations count.
        width: Width in pixels of the images for which operations count.
    """
    flops = flops_of_modules(network, height, width, genotype.inputs)
    sizes = parameter_sizes(network)

    def part(name: str, *paths: str, operator: str | None = None) -> Part:
        within = tuple(f"{path}." for path in paths)
        parameters = sum(size for parameter, size in sizes.items() if parameter.startswith(within))
        return Part(name, sum(flops[path] for path in paths), parameters, operator)

    def parts_of_cell(path: str, module: nn.Module, number: int, cell: CellGenotype) -> list[Part]:
        chains = [f"{path}.{name}" for name, child in module.named_children() if isinstance(child, Chain)]
        steps = [
            part(f"cell {number}, step {step + 1}", *(f"{chain}.{step}" for chain in chains), operator=operator)
            for step, operator in enumerate(cell.operators)
        ]
        size = "" if cell.level is None else f" at 1/{2 ** (cell.level + 1)} size"
        whole = part(f"cell {number}, {CELL_KINDS[cell.kind]}{size}", path)
        rest = (getattr(whole, cost) - sum(getattr(step, cost) for step in steps) for cost in ("flops", "parameters"))
        return [Part(whole.name, *rest), *steps]

    parts = []
    for name, module in network.named_children():
        if name.endswith("cells"):
            source = name.removesuffix("cells").removesuffix("_") or None  # the branch of a refine network
            cells = [(number, cell) for number, cell in enumerate(genotype.cells, start=1) if cell.source == source]
            for (number, cell), (place, built) in zip(cells, module.named_children(), strict=True):
                parts += parts_of_cell(f"{name}.{place}", built, number, cell)
        elif sum(1 for _ in module.parameters()):
            parts.append(part(name.replace("_", " "), name))
    return parts
