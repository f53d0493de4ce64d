"""The end of a search: the derived network, what it measures, and the files that hold it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from .. import __version__
from ..cost.budget_report import Spending, choose_measured
from ..cost.cost_model import Choices, count
from ..cost.cost_penalty import Charges
from ..cost.feasibility import advice
from ..cost.latency import measure_network
from ..data import Splits
from ..downstream import keep_task_network
from ..drawing import draw
from ..genotypes import Genotype, save_genotype
from ..objectives import FusionLoss
from ..objectives.loss_section import LossSection
from ..operators import (
    FusionNetwork,
    build_network,
    count_flops,
    count_parameters,
    inherited_weights,
    parameter_sizes,
)
from ..operators.registration import operator_sources
from ..runtime.config import config_hash
from ..runtime.device import device_name
from ..runtime.history import HISTORY_FILE, read_history
from ..runtime.weights import save_weights
from .discretise import choose, reasons
from .probability_curves import draw_probabilities
from .scorer import Scorer
from .search_batches import Batch, Streams
from .search_config import SearchConfig, SearchSection
from .search_validation import mean_losses, recalibrate

RECALIBRATION_BATCHES = 20
RULE = "the most probable operator of each edge at the last step, with its runner-up"
RULE_OF_BUDGET = "the most probable operators at the last step that meet the budget together"


def validation_losses(
    settings: SearchSection,
    fuse: Callable[[Tensor, Tensor], Tensor],
    streams: Streams,
    scorer: Scorer | None = None,
) -> dict[str, float]:
    """Average both losses of a search over the validation batches.

    Args:
        settings: holds the losses.
        fuse: makes the fused images of first and second.
        streams: holds the batches.
        scorer: whose loss is the outer one; None for that of the settings.

    Returns:
        `inner_loss` and `outer_loss`.
    """
    losses = {
        "inner_loss": _of_batches(settings.inner_loss),
        "outer_loss": _of_batches(settings.outer_loss) if scorer is None else scorer.loss,
    }
    with nullcontext() if scorer is None else scorer.evaluating():
        return mean_losses(lambda batch: fuse(batch.first, batch.second), streams.validation(), losses)


def _of_batches(section: LossSection) -> Callable[[Tensor, Any], Tensor]:
    loss = FusionLoss(**section.model_dump())

    def evaluate(fused: Tensor, batch: Batch) -> Tensor:
        return loss(fused, batch.first, batch.second)

    return evaluate


def conclude(
    config: SearchConfig,
    supernet: FusionNetwork,
    probabilities: Tensor,
    streams: Streams,
    splits: Splits,
    warnings: list[str],
    scorer: Scorer | None,
    charges: Charges | None,
) -> Genotype:
    """Derive the network, measure it and write everything that belongs to it; the genotype comes last.

    Args:
        config: of the search.
        supernet: with its searched weights.
        probabilities: (cells, steps, candidates) at the end.
        streams: the batches.
        splits: which pairs were for what.
        warnings: what the guards said on the way.
        scorer: what scored the architecture, if not fusion alone.
        charges: what the search paid for costs, if they counted.

    Returns:
        The genotype with its provenance, as in `genotype.yaml`.
    """
    run, space, device = config.run, config.space, probabilities.device
    name, height, width = run.resolve().name, config.cost.height, config.cost.width  # "." has no name of its own

    def describe(choices: Choices) -> Genotype:
        return space.genotype(name, config.task, [[space.operators[index] for index in row] for row in choices])

    def derive(choices: Choices) -> nn.Module:
        network = build_network(describe(choices)).to(device)
        network.load_state_dict(inherited_weights(supernet, choices))
        return network

    choices, spending = _choose(config, charges, probabilities, derive)
    network = derive(choices)
    recalibrate(network, streams.weight(0, RECALIBRATION_BATCHES))
    network.eval()
    mixture = validation_losses(config.search, partial(supernet, probabilities=probabilities), streams, scorer)
    derived = validation_losses(config.search, network, streams, scorer)
    time = spending.measured if spending and spending.kind == "ms" else measure_network(network, height, width, device)
    provenance: dict[str, object] = {
        "timfuse": __version__,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data": {
            "root": str(config.data.root) if config.data.root else "synthetic scenes",
            "weight_pairs": len(splits.weight),
            "architecture_pairs": len(splits.architecture),
            "validation_pairs": len(splits.validation),
        },
        **operator_sources(space.operators),
        **({} if scorer is None else {"outer_loss": _outer_loss(config, scorer)}),
        "estimator": config.search.estimator,
        "step": config.search.steps,
        "parameters": count_parameters(network),
        "flops_640x480": count_flops(network, 480, 640),
        "latency": {
            "milliseconds": round(time, 2),
            "height": height,
            "width": width,
            "device": device_name(device),
        },
        **({} if spending is None else {"budget": spending.provenance}),
        "metrics": {
            **{f"supernet_validation_{name}": value for name, value in mixture.items()},
            **{f"derived_validation_{name}": value for name, value in derived.items()},
        },
        "reason": {
            "rule": RULE if spending is None else RULE_OF_BUDGET,
            **{
                f"cell {cell}": texts
                for cell, texts in enumerate(reasons(probabilities, space.operators, choices), start=1)
            },
        },
        "warnings": warnings,
    }
    genotype = replace(describe(choices), provenance=provenance)
    save_weights(run / "weights.safetensors", network.state_dict(), {"genotype": genotype.name})
    draw(genotype, run / "pictures", parameter_sizes(network))
    draw_probabilities(read_history(run / HISTORY_FILE), run / "pictures")
    if scorer is not None:
        keep_task_network(scorer.network, run)
    save_genotype(genotype, run / "genotype.yaml")
    return genotype


def _outer_loss(config: SearchConfig, scorer: Scorer) -> dict[str, Any]:
    task = config.downstream
    assert task is not None
    return {"task": task.kind, "network": task.network, "init": task.init, "classes": list(scorer.network.classes)}


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
