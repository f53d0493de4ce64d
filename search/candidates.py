"""The candidates of a verification: networks that a search proposes, and random ones that cost the same."""

import random
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch

from ..cost import Choices, CostModel, Decisions, SearchSpace
from ..genotypes import Genotype

SCORED = 64
"""Number of networks that are scored by inherited weights, from which those to be trained are taken."""

BAND = 0.05  # largest difference of costs that count as equal, as a fraction
_DRAWS = 20_000  # of which the candidates are the first that fit

Allowed = Callable[[Choices], bool]
Key = tuple[int | tuple[int, ...], tuple[tuple[int | None, tuple[str, ...]], ...]]


def proposed(
    probabilities: Decisions,
    first: Sequence[Choices],
    space: SearchSpace,
    model: CostModel,
    costs: tuple[float, float],
    count: int,
    seed: int,
    allowed: Allowed = lambda _: True,
) -> list[Choices]:
    """Draw distinct networks from the distribution of a search, whose cost is within bounds.

    Args:
        first: The networks that searches chose, the best first; they are among the result, whatever they cost.
        model: What each network costs, in the unit of `costs`.
        costs: Least and largest cost of the networks that are drawn.
        count: Largest number of networks. A distribution that is decided has fewer.
        allowed: What else the networks that are drawn have to fulfil.

    Returns:
        The networks, in the order of `first`, and then those that are drawn.

    Example:
        >>> space = SearchSpace(8, ("successive",), 1, ("residual_k3_d1", "dense_k3_d1"))
        >>> model = CostModel("params", 0.0, torch.ones(1, 2, dtype=torch.float64))
        >>> probabilities = Decisions(torch.tensor([[[0.1, 0.9]]]))
        >>> networks = proposed(probabilities, [Choices([[1]])], space, model, (0.0, 1.0), 3, seed=0)
        >>> [network.operators for network in networks]
        [[[1]], [[0]]]
    """
    generator = torch.Generator().manual_seed(seed)
    cells, steps, _ = probabilities.operators.shape
    found: dict[Key, Choices] = {}
    for network in first[:count]:
        found.setdefault(network_key(space, network), network)
    operators = _drawn(probabilities.operators.flatten(0, 1), generator)
    widths = [[]] * _DRAWS if probabilities.widths is None else _drawn(probabilities.widths, generator)
    for row, of_levels in zip(operators, widths, strict=True):
        if len(found) >= count:
            break
        network = Choices([row[cell * steps : (cell + 1) * steps] for cell in range(cells)], tuple(of_levels))
        if costs[0] <= model.predict(network) <= costs[1] and allowed(network):
            found.setdefault(network_key(space, network), network)
    return list(found.values())


def _drawn(probabilities: torch.Tensor, generator: torch.Generator) -> list[list[int]]:
    """Draw an index from each row of (decisions, candidates), again and again."""
    weights = probabilities.detach().double().cpu()
    rows: list[list[int]] = torch.multinomial(weights, _DRAWS, replacement=True, generator=generator).T.tolist()
    return rows


def random_networks(
    networks: Sequence[Choices],
    space: SearchSpace,
    model: CostModel,
    seed: int,
    allowed: Allowed = lambda _: True,
) -> list[Choices]:
    """Draw for each of some networks another one uniformly from a space, which costs the same; all are distinct.

    There are fewer where the space has no more.

    Args:
        model: The cost of each network; costs within 5 % are the same.
        allowed: What else the networks that are drawn have to fulfil.

    Example:
        >>> space = SearchSpace(8, ("successive",), 1, ("residual_k3_d1", "dense_k3_d1"))
        >>> model = CostModel("params", 0.0, torch.ones(1, 2, dtype=torch.float64))
        >>> random_networks([Choices([[1]])], space, model, seed=0)
        [Choices(operators=[[0]], widths=())]
    """
    generator = random.Random(seed)
    costs = [model.predict(network) for network in networks]
    seen = {network_key(space, network) for network in networks}
    found: list[Choices] = []
    for _ in range(_DRAWS):
        if not costs:
            break
        network = uniform_network(space, generator)
        cost = model.predict(network)
        alike = next((other for other in costs if abs(cost - other) <= BAND * other), None)
        if alike is not None and allowed(network) and (key := network_key(space, network)) not in seen:
            seen.add(key)
            costs.remove(alike)
            found.append(network)
    return found


def plain_network(
    space: SearchSpace, model: CostModel, costs: tuple[float, float], allowed: Allowed = lambda _: True
) -> Choices | None:
    """Return the network that has the first operator of a space everywhere, as even in its widths as the bounds allow.

    It is what uniform shrinking finds without a search. It has all levels of the pyramid, unless the bounds forbid
    that. Where the space has `identity`, the blocks of each cell may be fewer than its steps; of equally even networks,
    the one with the most blocks and then the largest cost is taken.

    Args:
        model: What each network costs, in the unit of `costs`.
        costs: Least and largest cost of the network.
        allowed: What else the network has to fulfil.

    Returns:
        The network; None if there is none within the bounds.

    Example:
        >>> space = SearchSpace(8, ("successive",), 2, ("identity", "dense_k3_d1", "residual_k3_d1"))
        >>> model = CostModel("params", 0.0, torch.tensor([[0.0, 2.0, 1.0]], dtype=torch.float64))
        >>> plain_network(space, model, (1.0, 4.0)), plain_network(space, model, (1.0, 3.0))
        (Choices(operators=[[1, 1]], widths=()), Choices(operators=[[1, 0]], widths=()))
    """
    idle = space.operators.index("identity") if "identity" in space.operators else None
    operator = next(index for index in range(len(space.operators)) if index != idle)
    found: list[tuple[int, int, int, float, Choices]] = []
    for blocks in range(1 if idle is not None else space.steps, space.steps + 1):
        steps = [operator] * blocks + [idle or 0] * (space.steps - blocks)
        for widths in product(*(range(len(options)) for options in space.width_options)):
            network = Choices([list(steps) for _ in space.cells], widths)
            if costs[0] <= (cost := model.predict(network)) <= costs[1] and allowed(network):
                absent = sum(options[index] == 0 for options, index in zip(space.width_options, widths, strict=True))
                unevenness = max(widths) - min(widths) if widths else 0
                found.append((absent, unevenness, -blocks, -cost, network))
    return min(found, key=lambda each: each[:4])[4] if found else None


def uniform_network(space: SearchSpace, generator: random.Random) -> Choices:
    """Draw a network uniformly from a space.

    Example:
        >>> space = SearchSpace(8, ("successive",), 1, ("residual_k3_d1", "dense_k3_d1"))
        >>> uniform_network(space, random.Random(0))
        Choices(operators=[[1]], widths=())
    """
    candidates = range(len(space.operators))
    operators = [[generator.choice(candidates) for _ in range(space.steps)] for _ in space.cells]
    return Choices(operators, tuple(generator.randrange(len(options)) for options in space.width_options))


def network_key(space: SearchSpace, network: Choices) -> Key:
    """Return what tells networks apart: an identity changes nothing, wherever it stands."""
    genotype = space.genotype(network)
    cells = [(cell.level, tuple(name for name in cell.operators if name != "identity")) for cell in genotype.cells]
    return genotype.channels, tuple(cells)


def described(genotype: Genotype) -> dict[str, Any]:
    """Describe the decisions of a search in its network: its widths and the operators of its cells."""
    widths = genotype.channels if isinstance(genotype.channels, int) else list(genotype.channels)
    return {"channels": widths, "operators": [list(cell.operators) for cell in genotype.cells]}
