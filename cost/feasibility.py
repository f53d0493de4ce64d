"""Whether any network of a search space meets a budget, and which smaller space has one that does."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from ..genotypes.genotype import SOURCES
from ..operators import build_network
from ..runtime.errors import UserError
from .budget import Budget, format_cost
from .cost_model import CostModel, count_costs
from .deployment_target import DeploymentTarget
from .search_space import Choices, SearchSpace


def check_feasible(
    space: SearchSpace, budget: Budget, model: CostModel, target: DeploymentTarget, key: str = "cost.budget"
) -> None:
    """Check that the cheapest network of a search space meets the budget.

    Args:
        key: Key of the config that has the budget.

    Raises:
        UserError: If even the cheapest network is above the budget. The message says which setting would help.

    Example:
        >>> import torch
        >>> space = SearchSpace(8, ("successive",), 1, ("identity", "dense_k3_d1"))
        >>> target = DeploymentTarget(16, 16, torch.device("cpu"))
        >>> check_feasible(space, Budget("5kparams", "params", 5e3), count_costs("params", space, target), target)
    """
    cost = _least_cost(space, space, model, target)
    if cost > budget.amount:
        raise UserError(
            f"{key} = {budget.text} cannot be met: the cheapest network of this space costs "
            f"{format_cost(budget.kind, cost)} for images of {target.width}x{target.height}; "
            f"{suggest_setting(space, budget, model, target)}"
        )


def suggest_setting(space: SearchSpace, budget: Budget, model: CostModel, target: DeploymentTarget) -> str:
    """Name the gentlest change of the space that meets the budget, or the least cost that any change reaches.

    Example:
        >>> import torch
        >>> space = SearchSpace(8, ("successive",), 1, ("identity", "dense_k3_d1"))
        >>> target = DeploymentTarget(16, 16, torch.device("cpu"))
        >>> suggest_setting(space, Budget("1kparams", "params", 1e3), count_costs("params", space, target), target)
        'space.channels=4 would meet it (696 params)'
    """
    least = math.inf, ""
    for changes in _smaller_spaces(space):
        cost = _least_cost(replace(space, **changes), space, model, target)
        settings = " ".join(f"space.{key}={_setting(value)}" for key, value in changes.items())
        if cost <= budget.amount:
            return f"{settings} would meet it ({format_cost(budget.kind, cost)})"
        least = min(least, (cost, settings))
    if not least[1]:
        return "there is no smaller space"
    return f"even {least[1]} costs {format_cost(budget.kind, least[0])}"


def _smaller_spaces(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Yield changes of a space that make its networks cheaper, the gentle ones first."""
    changes = _changes_of_pyramid if space.levels else _changes_of_refine if space.sources else _changes
    for change in changes(space):
        differing = {key: value for key, value in change.items() if value != getattr(space, key)}
        if differing:
            yield differing


def _changes(space: SearchSpace) -> list[dict[str, Any]]:
    halved = [channels for (channels,) in _halved(space)]
    changes: list[dict[str, Any]] = [{"stem": "half"}]
    changes += [{"channels": channels} for channels in halved]
    changes += [{"cells": space.cells[:count]} for count in range(len(space.cells) - 1, 0, -1)]
    changes += [{"steps": steps} for steps in range(space.steps - 1, 0, -1)]
    changes += [{"stem": "half", "channels": channels} for channels in halved]
    for kind in dict.fromkeys(space.cells):
        smallest = {"channels": 2, "cells": (kind,), "steps": 1}
        changes += [smallest, {"stem": "half", **smallest}]
    return changes


def _changes_of_refine(space: SearchSpace) -> list[dict[str, Any]]:
    branches = [
        [kind for kind, source in zip(space.cells, space.sources, strict=True) if source == branch]
        for branch in SOURCES
    ]

    def shortened(count: int) -> dict[str, Any]:
        kept = [branch[:count] for branch in branches]
        sources = tuple(source for source, cells in zip(SOURCES, kept, strict=True) for _ in cells)
        return {"cells": tuple(chain.from_iterable(kept)), "sources": sources}

    changes: list[dict[str, Any]] = [{"channels": channels} for (channels,) in _halved(space)]
    changes += [shortened(count) for count in range(max(map(len, branches)) - 1, 0, -1)]
    changes += [{"steps": steps} for steps in range(space.steps - 1, 0, -1)]
    return [*changes, {"channels": 2, **shortened(1), "steps": 1}]


def _changes_of_pyramid(space: SearchSpace) -> list[dict[str, Any]]:
    places = sorted(zip(space.levels, space.cells, strict=True))
    fewer = [  # without the finest cells, which cost most
        {"levels": tuple(level for level, _ in rest), "cells": tuple(kind for _, kind in rest)}
        for rest in (places[start:] for start in range(1, len(places)))
    ]
    halved: list[dict[str, Any]] = [{"channels": channels} for channels in _halved(space)]
    if space.width_options:  # halved only, since cells left out of a stage are among the networks
        return halved
    changes = [*halved, *fewer]
    changes += [{"steps": steps} for steps in range(space.steps - 1, 0, -1)]
    return [*changes, {**(halved or [{}])[-1], **(fewer or [{}])[-1], "steps": 1}]


def _halved(space: SearchSpace) -> list[tuple[Any, ...]]:
    """Halve the channels of all levels again and again; they stay even, and those to choose from stay different."""
    options = space.width_options
    widths = space.bare().widths
    times = range(1, (max(widths) // 2).bit_length())
    if not options:
        return [tuple(_divided(width, time) for width in widths) for time in times]
    smaller = [tuple(tuple(_divided(width, time) for width in level) for level in options) for time in times]
    return [channels for channels in smaller if all(len(set(level)) == len(level) for level in channels)]


def _divided(width: int, time: int) -> int:
    return 2 * max(1, width // 2 >> time) if width else 0


def _least_cost(space: SearchSpace, searched: SearchSpace, model: CostModel, target: DeploymentTarget) -> float:
    """Return the cost of the cheapest network of a space whose cells are among those of the searched space.

    Where time is the cost, its operators are the fastest ones of the searched space, of which the model is. For counts,
    a model of the space itself is cheap.
    """
    if model.kind != "ms" and space != searched:
        searched, model = space, count_costs(model.kind, space, target)
    if space.width_options:
        return target.cost(model.kind, build_network(space.genotype(model.cheapest(space.steps))))
    cheapest = dict(zip(searched.places, model.candidates.argmin(1).tolist(), strict=True))
    genotype = space.genotype(Choices([[cheapest[place]] * space.steps for place in space.places]))
    return target.cost(model.kind, build_network(genotype))


def _setting(value: object) -> str:
    return f"[{','.join(map(_setting, value))}]" if isinstance(value, tuple) else str(value)
