"""The networks that a verification trains: what a search proposes, a plain one, and random ones of the same cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ..cost import BudgetReport, Choices, CostModel, Decisions, DeploymentTarget, SearchSpace, parse_budget
from ..cost.cost_model import count_costs
from ..genotypes import Genotype, load_genotype
from ..operators import beyond_crops
from ..runtime.device import select_device
from ..runtime.history import drawn_history
from ..runtime.progress import Progress
from ..runtime.run_files import SEED_FOLDERS
from ..runtime.seeds import derive_seed
from .candidate_training import Candidate
from .candidates import (
    BAND,
    SCORED,
    described,
    network_key,
    plain_network,
    proposed,
    random_networks,
)
from .inherited_loss import inherited_loss
from .relaxation import relax_all
from .search_config import SearchConfig
from .search_setup import open_penalty
from .starting_point import even_logits


def propose(config: SearchConfig) -> list[Candidate]:
    """List the candidates of a verification: the networks that a search proposes, a plain one, and random ones.

    The search proposes what it chose, and with it what it draws from its probabilities. Where it trained its weights on
    sampled networks (`search.mixture: gumbel`), these choose: of many networks, half of them drawn from its
    probabilities and half uniformly, those with the least loss are proposed. They cost the same as the chosen one, or
    of a search with widths about as much as its budget allows, in the unit of the budget, or else in operations. They
    see no farther than the crops are large, where the space has such networks.

    Raises:
        UserError: If the history of the search, or its measurements of time, cannot be read.
    """
    space = config.space.search_space
    found = load_genotype(config.run)
    target = DeploymentTarget(config.cost.height, config.cost.width, torch.device("cpu"))
    operations = count_costs("FLOPs", space, target)
    report = report_of_search(found)
    model, bounds = (operations, None) if report is None else _cost_of(config, report)
    seed = derive_seed(config.seed, "verification", 0)
    verified: Any = found.provenance.get("verification", {})
    chosen = [verified.get("searched", described(found))]
    searches = _searches(config)
    if config.seeds > 1:
        chosen += [described(load_genotype(run)) for run in searches]
    first = list(map(space.choices, chosen))
    sampled, count = config.search.mixture == "gumbel", config.candidates
    learned = _mean(distribution(run, space) for run in searches)
    # Where weights choose, from networks of both kinds: those that the probabilities prefer may be rare in the space,
    # as are networks with the finest level within a small budget; and probabilities alone may be wrong.
    drawn = max(SCORED, count) if sampled else count
    distributions = [learned, relax_all(even_logits(space), 1.0)] if sampled else [learned]
    chosen_cost = model.predict(first[0])
    largest = math.inf if bounds is None else max(bounds[1], chosen_cost)

    def affordable(network: Choices) -> bool:
        return model.predict(network) <= largest

    def trainable(network: Choices) -> bool:
        return affordable(network) and beyond_crops(space.genotype(network), config.data.crop) is None

    alike = (1 - BAND) * chosen_cost, (1 + BAND) * chosen_cost
    # The most probable network within a budget may be far below it. As quality grows with the cost, the others use it
    # up, where the space has such networks.
    used_up = [bounds] if bounds is not None and space.width_options else []
    for costs, allowed in product([*used_up, alike], (trainable, affordable)):
        ours: list[Choices] = []
        for probabilities in distributions:
            more = drawn // len(distributions)
            ours = proposed(probabilities, ours or first, space, model, costs, len(ours) + more, seed, allowed)
        if len(ours) >= count:
            break
    if sampled:
        distinct = len({network_key(space, network) for network in first})
        ours = _of_least_loss(ours, distinct, searches)[:count]
    others = random_networks(ours, space, model, seed, allowed)
    plain = plain_network(space, model, costs, allowed)
    known = {network_key(space, network) for network in ours + others}
    plains = [] if plain is None or network_key(space, plain) in known else [plain]
    return [
        Candidate(
            f"{origin}-{index}",
            origin,
            replace(config.for_task(space.genotype(network)), name=f"{origin}-{index}", provenance={"source": origin}),
            operations.predict(network) / 1e9,
            model.predict(network) if model.kind == "ms" else None,
            [],
        )
        for origin, networks in (("proposed", ours), ("plain", plains), ("random", others))
        for index, network in enumerate(networks)
    ]


def report_of_search(found: Genotype) -> BudgetReport | None:
    """Return what the network that a search chose costs; None if there is no budget."""
    verified: Any = found.provenance.get("verification", {})
    fields = verified.get("searched_budget")
    return BudgetReport.of(found) if fields is None else BudgetReport(**fields)


def _cost_of(config: SearchConfig, chosen: BudgetReport) -> tuple[CostModel, tuple[float, float]]:
    """Return the model of the cost that has a budget, and the bounds of what candidates cost by it.

    Args:
        chosen: The cost of the network that the search chose.
    """
    penalty = open_penalty(config, select_device(config.device), resume=True)
    assert penalty is not None
    largest = parse_budget(chosen.asked).amount
    if chosen.kind == "ms":  # a prediction has a bias, which is that of the chosen network, and a few percent of noise
        largest *= (1 - BAND) * min(1.0, chosen.predicted / chosen.measured)
    return penalty.models[chosen.kind], ((1 - BAND) * largest, largest)


def _mean(distributions: Iterable[Decisions]) -> Decisions:
    """Average distributions of the same decisions."""
    tensors = zip(*(each.tensors for each in distributions), strict=True)
    return Decisions(*(torch.stack(of_kind).mean(0) for of_kind in tensors))


def _of_least_loss(networks: list[Choices], chosen: int, searches: Sequence[Path]) -> list[Choices]:
    """Sort networks by their loss with the weights of searches, but for the chosen ones, which stay the first."""
    losses = [inherited_loss(run) for run in searches]
    left = networks[chosen:]
    with Progress(len(left), "scoring networks", unit="networks") as progress:
        scores = []
        for network in left:
            scores.append(sum(loss(network) for loss in losses))
            progress.advance()
    order = sorted(range(len(left)), key=scores.__getitem__)
    return [*networks[:chosen], *(left[index] for index in order)]


def distribution(run: Path, space: SearchSpace) -> Decisions:
    """Read the probabilities with which a search ended from its history.

    Raises:
        UserError: If there are none.
    """
    with drawn_history(run) as history:
        last: Mapping[str, Mapping[str, float]] = [row for row in history if "probability" in row][-1]["probability"]
        operators = [
            [[last[f"cell {cell} step {step}"][name] for name in space.operators] for step in range(1, space.steps + 1)]
            for cell in range(1, len(space.cells) + 1)
        ]
        widths = [
            [last[f"level {level} width"][str(width)] for width in options]
            for level, options in enumerate(space.width_options)
        ]
        return Decisions(
            torch.tensor(operators, dtype=torch.float64), torch.tensor(widths, dtype=torch.float64) if widths else None
        )


def _searches(config: SearchConfig) -> list[Path]:
    """Return the run folders of a search: those of its seeds, or its own."""
    if config.seeds == 1:
        return [config.run]
    return [config.run / SEED_FOLDERS.replace("*", str(config.seed + index)) for index in range(config.seeds)]
