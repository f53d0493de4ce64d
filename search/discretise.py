"""From operator probabilities to a network: one operator for each edge, with the reason."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..cost import CostModel
from ..cost.search_space import Choices

SMALLEST_PROBABILITY = 1e-45  # replaces a probability of 0, so that networks with one can be compared
_ROUNDING = 1e-12
_TRIES = 5  # largest number of measured networks
_MARGIN = 0.98  # of the corrected bound, so that the next network does not exceed the budget by as little again


def choose(probabilities: Tensor) -> Choices:
    """Choose the most probable candidate of each edge, of equal ones the first, from (cells, steps, candidates).

    Example:
        >>> choose(torch.tensor([[[0.2, 0.8], [0.6, 0.4]]]))
        [[1, 0]]
    """
    choices: Choices = _ranked(probabilities)[1][..., 0].tolist()
    return choices


def choose_within(probabilities: Tensor, model: CostModel, allowed: float) -> Choices:
    """Choose the network with the largest product of probabilities among all whose predicted cost is within a bound.

    Dynamic programming over the edges: of all partial networks up to an edge it keeps those that no other surpasses in
    probability at the same or a lower cost. The result is exact, and their number stays in the thousands.

    Args:
        probabilities: Operator probabilities, (cells, steps, candidates).
        allowed: Largest predicted cost, in the model's unit.

    Returns:
        For each cell and step, the index of the candidate; the cheapest network if none is within the bound.
    """
    likely = choose(probabilities)
    if model.predict(likely) <= allowed:
        return likely
    cells, steps, candidates = probabilities.shape
    logs = probabilities.double().clamp_min(SMALLEST_PROBABILITY).log().cpu().flatten(0, 1)  # (edges, candidates)
    costs = model.candidates.repeat_interleave(steps, 0)
    to_come = costs.amin(1).flip(0).cumsum(0).flip(0) - costs.amin(1)  # least cost of the edges after each
    totals, scores = torch.tensor([model.rest], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    links = []
    for edge in range(len(logs)):
        joined = (totals[:, None] + costs[edge]).flatten(), (scores[:, None] + logs[edge]).flatten()
        bound = allowed * (1 + _ROUNDING) if edge < len(logs) - 1 else allowed
        kept = (joined[0] + to_come[edge] <= bound).nonzero().flatten()
        totals, scores = joined[0][kept], joined[1][kept]
        kept = kept[_unsurpassed(totals, scores)]
        if not len(kept):
            return model.cheapest(steps)
        totals, scores = joined[0][kept], joined[1][kept]
        links.append(kept)
    place, choices = len(scores) - 1, []  # the last one is the most probable
    for kept in reversed(links):
        place, choice = divmod(int(kept[place]), candidates)
        choices.append(choice)
    return torch.tensor(choices[::-1]).view(cells, steps).tolist()


def choose_measured(
    probabilities: Tensor, model: CostModel, allowed: float, measure: Callable[[Choices], float]
) -> tuple[Choices, float]:
    """Choose the most probable network whose measured cost, and not only the predicted one, is within a bound.

    If a network exceeds the bound, the bound on the predicted cost of the next one is lowered in proportion. After a
    few tries the network with the least predicted cost is measured.

    Args:
        probabilities: Operator probabilities, (cells, steps, candidates).
        allowed: Largest measured cost, in the model's unit.

    Returns:
        For each cell and step, the index of the candidate, and the measured cost. If no measured network is within the
        bound, both are those of the cheapest one.
    """
    bound = allowed
    tried: list[tuple[float, Choices]] = []
    for remaining in reversed(range(_TRIES)):
        choices = choose_within(probabilities, model, bound) if remaining else model.cheapest(probabilities.shape[1])
        if choices in (before for _, before in tried):
            break
        cost = measure(choices)
        tried.append((cost, choices))
        if cost <= allowed:
            break
        bound = _MARGIN * min(bound, model.predict(choices)) * allowed / cost
    cost, choices = min(tried)
    return choices, cost


def reasons(probabilities: Tensor, operators: Sequence[str], choices: Choices) -> list[list[str]]:
    """Explain each chosen operator by its probability and that of the best other one.

    Example:
        >>> probabilities = torch.tensor([[[0.2, 0.8], [0.6, 0.4]]])
        >>> reasons(probabilities, ["residual_k3_d1", "dense_k3_d1"], [[1, 1]])[0][0]
        'dense_k3_d1 0.80 before residual_k3_d1 0.20'
        >>> reasons(probabilities, ["residual_k3_d1", "dense_k3_d1"], [[1, 1]])[0][1]
        'dense_k3_d1 0.40 instead of residual_k3_d1 0.60, for the budget'
    """
    values, indices = (ranked.tolist() for ranked in _ranked(probabilities))
    return [
        [
            _reason([operators[index] for index in edge_indices], edge_values, operators[choice])
            for edge_values, edge_indices, choice in zip(cell_values, cell_indices, row, strict=True)
        ]
        for cell_values, cell_indices, row in zip(values, indices, choices, strict=True)
    ]


def _reason(operators: list[str], probabilities: list[float], chosen: str) -> str:
    place = operators.index(chosen)
    other = 0 if place else 1
    words = f"{chosen} {probabilities[place]:.2f} {{}} {operators[other]} {probabilities[other]:.2f}"
    return words.format("instead of") + ", for the budget" if place else words.format("before")


def _unsurpassed(totals: Tensor, scores: Tensor) -> Tensor:
    """Return the indices of the networks whose score exceeds that of all cheaper ones, in rising order of both."""
    order = scores.argsort(descending=True, stable=True)
    order = order[totals[order].argsort(stable=True)]
    ordered = scores[order]
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = ordered[1:] > ordered.cummax(0).values[:-1]
    return order[first]


def _ranked(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Sort by falling probability; stable, so that choice and reason agree for equal candidates."""
    values, indices = probabilities.sort(dim=-1, descending=True, stable=True)
    return values, indices
