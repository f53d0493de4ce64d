"""From a searched supernet to a genotype: one operator per edge, and why."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..cost import CostModel
from ..cost.search_space import Choices

SMALLEST_PROBABILITY = 1e-45  # stands for a probability that has become 0, so that a network with one can be compared
_ROUNDING = 1e-12
_TRIES = 5  # measurements of networks that may be within a budget
_MARGIN = 0.98  # of what a measurement leaves, so that the next network does not miss the budget by as little again


def choose(probabilities: Tensor) -> Choices:
    """Keep the most probable candidate of each edge, of equal ones the first.

    Args:
        probabilities: (cells, steps, candidates).

    Returns:
        For each cell and step, the index of the candidate.
    """
    choices: Choices = _ranked(probabilities)[1][..., 0].tolist()
    return choices


def choose_within(probabilities: Tensor, model: CostModel, allowed: float) -> Choices:
    """Keep the candidates of the largest product of probabilities among all networks that cost at most so much.

    Edge after edge joins the networks of the edges before; of these only the ones matter that no other one surpasses in
    probability at no higher cost. So the result is exact, and their number stays in the thousands.

    Args:
        probabilities: (cells, steps, candidates).
        model: what networks cost.
        allowed: the bound.

    Returns:
        For each cell and step, the index of the candidate; `choose`'s where these cost at most so much, and the
        cheapest ones where no network does.
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

    Where a network costs more than the bound, the predicted cost of the next one is bounded in proportion. After a few
    tries the network of least predicted cost is measured.

    Args:
        probabilities: (cells, steps, candidates).
        model: Predicts the costs.
        allowed: The bound.
        measure: Returns the cost of a network.

    Returns:
        For each cell and step, the index of the candidate, and the measured cost. If no network that was tried is
        within the bound, these are those of the cheapest one.
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
    """Say for each edge how far its operator lay before the runner-up, or that a budget decided otherwise.

    Args:
        probabilities: (cells, steps, candidates).
        operators: ids of the candidates.
        choices: for each cell and step, the index of the candidate.

    Returns:
        For each cell and step a text like "residual_k3_d1 0.62 before dense_k3_d1 0.21", or "residual_k3_d1 0.31
        instead of dense_k3_d1 0.40, for the budget".
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
    """List the networks whose score is above that of all cheaper ones, by rising cost and score."""
    order = scores.argsort(descending=True, stable=True)
    order = order[totals[order].argsort(stable=True)]
    ordered = scores[order]
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = ordered[1:] > ordered.cummax(0).values[:-1]
    return order[first]


def _ranked(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Sort by falling probability; stable, so that choice and reason agree where candidates are equal."""
    values, indices = probabilities.sort(dim=-1, descending=True, stable=True)
    return values, indices
