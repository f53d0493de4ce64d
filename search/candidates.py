"""The candidates of a verification: networks that a search proposes, and random ones that cost the same."""

import random
from collections.abc import Iterator

import torch
from torch import Tensor

from ..cost import CostModel
from ..cost.search_space import Choices

BAND = 0.05  # largest difference of costs that count as equal, as a fraction
_DRAWS = 20_000  # of which the candidates are the first that fit


def proposed(
    probabilities: Tensor, first: Choices, model: CostModel, count: int, idle: int | None, seed: int
) -> list[Choices]:
    """Draw distinct networks from the distribution of a search, which cost the same as the one that it chose.

    Args:
        probabilities: Operator probabilities, (cells, steps, candidates).
        first: The network that the search chose.
        model: The cost of each network; costs within 5 % are the same.
        count: Largest number of networks. A distribution that is decided has fewer.
        idle: Index of the identity among the candidates, if it is one: networks that differ in its place alone are one.

    Returns:
        The networks, that of the search first.

    Example:
        >>> model = CostModel("params", 0.0, torch.ones(1, 2, dtype=torch.float64))
        >>> proposed(torch.tensor([[[0.1, 0.9]]]), [[1]], model, 3, None, seed=0)
        [[[1]], [[0]]]
    """
    generator = torch.Generator().manual_seed(seed)
    weights = probabilities.detach().double().cpu().flatten(0, 1)
    drawn = torch.multinomial(weights, _DRAWS, replacement=True, generator=generator)  # (edges, draws)
    shape = probabilities.shape[:2]
    networks = (edges.view(shape).tolist() for edges in drawn.unbind(1))
    return _fitting(first, networks, model, count, {_key(first, idle)}, idle, [first])


def random_networks(
    first: Choices, model: CostModel, count: int, idle: int | None, seed: int, taken: list[Choices]
) -> list[Choices]:
    """Draw distinct networks uniformly from a space, which cost the same as a given one and are not taken.

    Example:
        >>> model = CostModel("params", 0.0, torch.ones(1, 2, dtype=torch.float64))
        >>> random_networks([[1]], model, 3, None, seed=0, taken=[[[1]]])
        [[[0]]]
    """
    generator = random.Random(seed)
    operators = range(model.candidates.shape[1])
    networks = ([[generator.choice(operators) for _ in row] for row in first] for _ in range(_DRAWS))
    return _fitting(first, networks, model, count, {_key(network, idle) for network in taken}, idle, [])


def _fitting(
    first: Choices,
    networks: Iterator[Choices],
    model: CostModel,
    count: int,
    seen: set[tuple[tuple[int, ...], ...]],
    idle: int | None,
    found: list[Choices],
) -> list[Choices]:
    cost = model.predict(first)
    for network in networks:
        if len(found) >= count:
            break
        key = _key(network, idle)
        if key not in seen and abs(model.predict(network) - cost) <= BAND * cost:
            seen.add(key)
            found.append(network)
    return found


def _key(network: Choices, idle: int | None) -> tuple[tuple[int, ...], ...]:
    """Return what tells networks apart."""
    return tuple(tuple(index for index in row if index != idle) for row in network)
