"""Whether any network of a search space meets a budget, and which setting would bring one within."""

from collections.abc import Iterator
from typing import Any

import torch

from ..operators import build_network
from ..runtime.errors import UserError
from ..search.search_config import CostSection, SearchConfig, SpaceSection
from .budget import Budget, format_cost
from .cost_model import CostModel, count_costs
from .latency import measure_network

_FEWEST_CHANNELS = 2
_WORDS = {
    "ms": "the fastest network of this space takes {cost} for {size} on this device",
    "FLOPs": "the smallest network of this space needs {cost} for {size}",
    "params": "the smallest network of this space has {cost}",
}


def check_reachable(config: SearchConfig, budget: Budget, model: CostModel, device: torch.device) -> None:
    """Check before a search that there is a network that it may find.

    Args:
        config: of the search.
        budget: of `config.cost`.
        model: of the costs of its space.
        device: where to measure, if the budget is a time.

    Raises:
        UserError: even the cheapest network is above the budget; says what would help.
    """
    cost = _least_cost(config.space, config.cost, config.space, model, device)
    if cost > budget.amount:
        words = _WORDS[budget.kind].format(
            cost=format_cost(budget.kind, cost), size=f"{config.cost.width}x{config.cost.height}"
        )
        raise UserError(
            f"cost.budget = {config.cost.budget} cannot be met: {words}; {advice(config, budget, model, device)}"
        )


def advice(config: SearchConfig, budget: Budget, model: CostModel, device: torch.device) -> str:
    """Say which other setting of the space would meet a budget, or how far the settings go.

    Args:
        config: of the search.
        budget: of `config.cost`.
        model: of the costs of its space.
        device: where to measure, if the budget is a time.

    Returns:
        Something like "space.channels=8 would (4.1 ms)".
    """
    least: tuple[float, str] | None = None
    for changes in _smaller_spaces(config.space):
        cost = _least_cost(config.space.model_copy(update=changes), config.cost, config.space, model, device)
        settings = " ".join(f"space.{key}={_shown(value)}" for key, value in changes.items())
        if cost <= budget.amount:
            return f"{settings} would ({format_cost(budget.kind, cost)})"
        least = min(least or (cost, settings), (cost, settings))
    if least is None:
        return "no smaller space is left"
    return f"the least that a smaller space reaches is {format_cost(budget.kind, least[0])}, with {least[1]}"


def _smaller_spaces(space: SpaceSection) -> Iterator[dict[str, Any]]:
    """List changes of a space that make its networks cheaper, the gentle ones first."""
    halved = []
    channels = space.channels
    while channels > _FEWEST_CHANNELS:
        channels = max(_FEWEST_CHANNELS, channels // 4 * 2)
        halved.append(channels)
    changes: list[dict[str, Any]] = [{"stem": "half"}]
    changes += [{"channels": channels} for channels in halved]
    changes += [{"cells": space.cells[:count]} for count in range(len(space.cells) - 1, 0, -1)]
    changes += [{"steps": steps} for steps in range(space.steps - 1, 0, -1)]
    changes += [{"stem": "half", "channels": channels} for channels in halved]
    for kind in dict.fromkeys(space.cells):
        smallest = {"channels": _FEWEST_CHANNELS, "cells": (kind,), "steps": 1}
        changes += [smallest, {"stem": "half", **smallest}]
    for change in changes:
        differing = {key: value for key, value in change.items() if value != getattr(space, key)}
        if differing:
            yield differing


def _least_cost(
    space: SpaceSection, section: CostSection, searched: SpaceSection, model: CostModel, device: torch.device
) -> float:
    """Return the cost of a space's cheapest network; that of least time is taken to have the searched one's operators.

    Args:
        space: the space.
        section: the size of the images.
        searched: the space that the model is of; the cells of `space` are among its own.
        model: of the costs.
        device: where to measure a time.
    """
    if model.kind != "ms":
        if space != searched:
            model = count_costs(model.kind, space.bare, space.operators, section.height, section.width)
        return model.of(model.cheapest(space.steps))
    fastest = {
        kind: [space.operators[index] for index in row]
        for kind, row in zip(searched.cells, model.cheapest(space.steps), strict=True)
    }
    genotype = space.genotype("fastest", "infrared-visible", [fastest[kind] for kind in space.cells])
    return measure_network(build_network(genotype), section.height, section.width, device)


def _shown(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
