"""The end of a search: the derived network, what it measures, and the files that hold it."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..cost.budget_report import Spending, choose_measured
from ..cost.cost_model import Choices, count
from ..cost.cost_penalty import Charges
from ..cost.feasibility import advice
from ..cost.latency import measure_network
from ..downstream import keep_task_network
from ..drawing import draw
from ..genotypes import Genotype
from ..objectives import FusionLoss
from ..operators import (
    FusionNetwork,
    build_network,
    count_flops,
    count_parameters,
    inherited_weights,
    parameter_sizes,
    save_network_folder,
)
from ..operators.registration import operator_sources
from ..runtime.device import device_name
from ..runtime.history import read_history
from ..runtime.run_files import HISTORY_FILE, PICTURES_FOLDER
from .discretise import choose, reasons
from .probability_curves import draw_probabilities
from .scorer import Scorer
from .search_batches import SearchBatches
from .search_config import SearchConfig
from .search_validation import mean_losses, recalibrate

RECALIBRATION_BATCHES = 20
RULE = "the most probable operator of each edge at the last step, with its runner-up"
RULE_OF_BUDGET = "the most probable operators at the last step that meet the budget together"


def validation_losses(
    outer: FusionLoss,
    inner: FusionLoss,
    fuse: Callable[[Tensor, Tensor], Tensor],
    batches: SearchBatches,
    scorer: Scorer | None = None,
) -> dict[str, float]:
    """Average both losses of a search over the validation batches.

    Args:
        outer: The fusion loss that scores the architecture where no task network does.
        inner: The fusion loss that trains the weights.
        fuse: Fuses two (N, 1, H, W) sources.
        batches: The batches of the search.
        scorer: The task network whose loss is the outer one; None for `outer`.

    Returns:
        `inner_loss` and `outer_loss`.
    """
    losses = {"inner_loss": _of_batches(inner), "outer_loss": _of_batches(outer) if scorer is None else scorer.loss}
    with nullcontext() if scorer is None else scorer.evaluating():
        return mean_losses(lambda batch: fuse(batch.first, batch.second), batches.validation(), losses)


def _of_batches(loss: FusionLoss) -> Callable[[Tensor, Any], Tensor]:
    return lambda fused, batch: loss(fused, batch.first, batch.second)


def conclude(
    config: SearchConfig,
    supernet: FusionNetwork,
    probabilities: Tensor,
    outer: FusionLoss,
    inner: FusionLoss,
    batches: SearchBatches,
    warnings: list[str],
    scorer: Scorer | None,
    charges: Charges | None,
) -> Genotype:
    """Derive the network, measure it and write everything that belongs to it; the genotype comes last.

    Args:
        config: of the search.
        supernet: with its searched weights.
        probabilities: (cells, steps, candidates) at the end.
        outer: The fusion loss that scores the architecture where no task network does.
        inner: The fusion loss that trains the weights.
        batches: The batches of the search.
        warnings: what the guards said on the way.
        scorer: what scored the architecture, if not fusion alone.
        charges: what the search paid for costs, if they counted.

    Returns:
        The genotype with its provenance, as in `genotype.yaml`.
    """
    run, space, device = config.run, config.space, probabilities.device
    name, height, width = run.resolve().name, config.cost.height, config.cost.width  # "." has no name of its own

    def describe(choices: Choices) -> Genotype:
        return config.for_task(space.genotype(name, [[space.operators[index] for index in row] for row in choices]))

    def derive(choices: Choices) -> nn.Module:
        network = build_network(describe(choices)).to(device)
        network.load_state_dict(inherited_weights(supernet, choices))
        return network

    choices, spending = _choose(config, charges, probabilities, derive)
    network = derive(choices)
    recalibrate(network, batches.weight(0, RECALIBRATION_BATCHES))
    network.eval()
    mixture = validation_losses(outer, inner, partial(supernet, probabilities=probabilities), batches, scorer)
    derived = validation_losses(outer, inner, network, batches, scorer)
    time = spending.measured if spending and spending.kind == "ms" else measure_network(network, height, width, device)
    sources = operator_sources(space.operators)
    chosen_because = enumerate(reasons(probabilities, space.operators, choices), start=1)
    genotype = config.described(
        describe(choices),
        data={"root": config.data.origin, **batches.pairs.counts},
        **({"operators": sources} if sources else {}),
        **({} if scorer is None else {"downstream": scorer.provenance}),
        estimator=config.search.estimator,
        steps=config.search.steps,
        parameters=count_parameters(network),
        flops_640x480=count_flops(network, 480, 640),
        latency={"milliseconds": round(time, 2), "height": height, "width": width, "device": device_name(device)},
        **({} if spending is None else {"budget": spending.provenance}),
        metrics={"supernet": {"mean": mixture}, "derived": {"mean": derived}},
        reason={
            "rule": RULE if spending is None else RULE_OF_BUDGET,
            **{f"cell {cell}": texts for cell, texts in chosen_because},
        },
        warnings=warnings,
    )
    draw(genotype, run / PICTURES_FOLDER, parameter_sizes(network))
    draw_probabilities(read_history(run / HISTORY_FILE), run / PICTURES_FOLDER)
    if scorer is not None:
        keep_task_network(scorer.network, run)
    save_network_folder(run, genotype, network)
    return genotype


def _choose(
    config: SearchConfig,
    charges: Charges | None,
    probabilities: Tensor,
    derive: Callable[[Choices], nn.Module],
) -> tuple[Choices, Spending | None]:
    """Choose the operators, within the budget if there is one, and say what came of that."""
    cost, budget, device = config.cost, config.cost.parsed_budget, probabilities.device
    if charges is None or budget is None:
        return choose(probabilities), None

    def measure(choices: Choices) -> float:
        network = derive(choices)
        if budget.kind == "ms":
            return measure_network(network, cost.height, cost.width, device)
        return count(budget.kind, network, cost.height, cost.width)

    model = charges.models[budget.kind]
    choices, measured = choose_measured(probabilities, model, budget, measure)
    met = measured <= budget.amount
    told = None if met else advice(config, budget, model, device)
    return choices, Spending(str(cost.budget), budget.kind, round(model.of(choices), 4), measured, met, told)
