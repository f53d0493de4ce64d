"""From probabilities to a network: one operator for each edge and one width for each level, with the reason."""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from ..cost import Choices, CostModel, Decisions, SearchSpace

SMALLEST_PROBABILITY = 1e-45  # replaces a probability of 0, so that networks with one can be compared
_ROUNDING = 1e-12
_TRIES = 5  # largest number of measured networks
_MARGIN = 0.98  # of the corrected bound, so that the next network does not exceed the budget by as little again


def choose(probabilities: Decisions) -> Choices:
    """Choose the most probable candidate of each decision, of equal ones the first.

    Example:
        >>> choose(Decisions(torch.tensor([[[0.2, 0.8], [0.6, 0.4]]])))
        Choices(operators=[[1, 0]], widths=())
    """
    operators, widths = probabilities
    chosen = () if widths is None else tuple(_ranked(widths)[1][..., 0].tolist())
    return Choices(_ranked(operators)[1][..., 0].tolist(), chosen)


def choose_within(probabilities: Decisions, model: CostModel, allowed: float) -> Choices:
    """Choose the network with the largest product of probabilities among all whose predicted cost is within a bound.

    Of each combination of widths, from the most probable on, it takes the best operators, until no further combination
    can surpass what was found. The result is exact.

    Args:
        allowed: Largest predicted cost, in the model's unit.

    Returns:
        The network; the cheapest one if none is within the bound.
    """
    likely = choose(probabilities)
    if model.predict(likely) <= allowed:
        return likely
    operators, widths = probabilities
    cells, steps, _ = operators.shape
    logs = _logs(operators)
    bound = logs.amax(-1).sum().item()  # of the operators of any network
    found: tuple[float, Choices] | None = None
    for score, combination in _combinations(widths):
        if found is not None and score + bound <= found[0]:
            break
        best = _operators_within(logs.flatten(0, 1), steps, model.at(combination), allowed)
        if best is not None and (found is None or score + best[0] > found[0]):
            found = score + best[0], Choices(torch.tensor(best[1]).view(cells, steps).tolist(), combination)
    return model.cheapest(steps) if found is None else found[1]


def _combinations(widths: Tensor | None) -> list[tuple[float, tuple[int, ...]]]:
    """List all combinations of widths with the logarithms of their probabilities, the most probable first."""
    if widths is None:
        return [(0.0, ())]
    rows = _logs(widths).tolist()
    scored = [
        (sum(row[index] for row, index in zip(rows, combination, strict=True)), combination)
        for combination in product(*(range(len(row)) for row in rows))
    ]
    return sorted(scored, key=lambda pair: -pair[0])


def _logs(probabilities: Tensor) -> Tensor:
    return probabilities.detach().double().clamp_min(SMALLEST_PROBABILITY).log().cpu()


def _operators_within(logs: Tensor, steps: int, model: CostModel, allowed: float) -> tuple[float, list[int]] | None:
    """Choose the most probable operators among all whose predicted cost is within a bound.

    Dynamic programming over the edges: of all partial networks up to an edge it keeps those that no other surpasses in
    probability at the same or a lower cost. The result is exact, and their number stays in the thousands.

    Args:
        logs: Logarithms of the probabilities, (edges, candidates).
        model: The costs at fixed widths.

    Returns:
        The logarithm of the network's probability and the operator of each edge; None if no network is within.
    """
    costs = model.candidates.repeat_interleave(steps, 0)
    to_come = costs.amin(1).flip(0).cumsum(0).flip(0) - costs.amin(1)  # least cost of the edges after each
    totals, scores = torch.tensor([float(model.rest)], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    links = []
    for edge in range(len(logs)):
        joined = (totals[:, None] + costs[edge]).flatten(), (scores[:, None] + logs[edge]).flatten()
        bound = allowed * (1 + _ROUNDING) if edge < len(logs) - 1 else allowed
        kept = (joined[0] + to_come[edge] <= bound).nonzero().flatten()
        totals, scores = joined[0][kept], joined[1][kept]
        kept = kept[_unsurpassed(totals, scores)]
        if not len(kept):
            return None
        totals, scores = joined[0][kept], joined[1][kept]
        links.append(kept)
    place, choices = len(scores) - 1, []  # the last one is the most probable
    score = scores[place].item()
    for kept in reversed(links):
        place, choice = divmod(int(kept[place]), logs.shape[1])
        choices.append(choice)
    return score, choices[::-1]


def choose_measured(
    probabilities: Decisions, model: CostModel, allowed: float, measure: Callable[[Choices], float]
) -> tuple[Choices, float]:
    """Choose the most probable network whose measured cost, and not only the predicted one, is within a bound.

    If a network exceeds the bound, the bound on the predicted cost of the next one is lowered in proportion. After a
    few tries the network with the least predicted cost is measured.

    Args:
        allowed: Largest measured cost, in the model's unit.

    Returns:
        The network and its measured cost. If no measured network is within the bound, both are those of the cheapest
        one.
    """
    bound, steps = allowed, probabilities.operators.shape[1]
    tried: list[tuple[float, Choices]] = []
    for remaining in reversed(range(_TRIES)):
        choices = choose_within(probabilities, model, bound) if remaining else model.cheapest(steps)
        if choices in (before for _, before in tried):
            break
        cost = measure(choices)
        tried.append((cost, choices))
        if cost <= allowed:
            break
        bound = _MARGIN * min(bound, model.predict(choices)) * allowed / cost
    cost, choices = min(tried)
    return choices, cost


def reasons(probabilities: Decisions, space: SearchSpace, choices: Choices) -> dict[str, list[str]]:
    """Explain each choice by its probability and that of the best other one, for each cell and for the widths.

    Example:
        >>> space = SearchSpace(8, ("successive",), 2, ("residual_k3_d1", "dense_k3_d1"))
        >>> probabilities = Decisions(torch.tensor([[[0.2, 0.8], [0.6, 0.4]]]))
        >>> texts = reasons(probabilities, space, Choices([[1, 1]]))["cell 1"]
        >>> texts[0]
        'dense_k3_d1 0.80 before residual_k3_d1 0.20'
        >>> texts[1]
        'dense_k3_d1 0.40 instead of residual_k3_d1 0.60, for the budget'
    """
    found = {
        f"cell {cell}": [_reason(space.operators, row, choice) for row, choice in zip(rows, chosen, strict=True)]
        for cell, (rows, chosen) in enumerate(zip(probabilities.operators, choices.operators, strict=True), start=1)
    }
    if probabilities.widths is not None:
        found["widths"] = [
            _reason(list(map(str, options)), row, choice)
            for options, row, choice in zip(space.width_options, probabilities.widths, choices.widths, strict=True)
        ]
    return found


def _reason(names: Sequence[str], row: Tensor, chosen: int) -> str:
    values, indices = (ranked.tolist() for ranked in _ranked(row))
    place = indices.index(chosen)
    other = 0 if place else 1
    words = f"{names[chosen]} {values[place]:.2f} {{}} {names[indices[other]]} {values[other]:.2f}"
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
