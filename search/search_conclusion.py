"""The end of a search: the derived network, what it measures, and the files that hold it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from .. import __version__
from ..cost import BudgetReport, Choices, CostPenalty, DeploymentTarget, SearchSpace, suggest_setting
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
from .discretise import choose, choose_measured, reasons
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
    penalty: CostPenalty | None,
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
        penalty: What the search added to its outer loss for costs, if anything.

    Returns:
        The genotype with its provenance, as in `genotype.yaml`.
    """
    run, space, device = config.run, config.space.search_space, probabilities.device
    target = DeploymentTarget(config.cost.height, config.cost.width, device)

    def describe(choices: Choices) -> Genotype:
        name = run.resolve().name  # "." has no name of its own
        return replace(space.genotype(choices), name=name, task=config.task)

    def derive(choices: Choices) -> nn.Module:
        network = build_network(describe(choices)).to(device)
        network.load_state_dict(inherited_weights(supernet, choices))
        return network

    choices, budget = _choose(space, penalty, target, probabilities, derive)
    network = derive(choices)
    recalibrate(network, streams.weight(0, RECALIBRATION_BATCHES))
    network.eval()
    mixture = validation_losses(config.search, partial(supernet, probabilities=probabilities), streams, scorer)
    derived = validation_losses(config.search, network, streams, scorer)
    time = budget.measured if budget and budget.kind == "ms" else target.cost("ms", network)
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
        **({} if scorer is None else {"outer_loss": scorer.provenance}),
        "estimator": config.search.estimator,
        "step": config.search.steps,
        "parameters": count_parameters(network),
        "flops_640x480": count_flops(network, 480, 640),
        "latency": {
            "milliseconds": round(time, 2),
            "height": target.height,
            "width": target.width,
            "device": device_name(device),
        },
        **({} if budget is None else {"budget": budget.provenance}),
        "metrics": {
            **{f"supernet_validation_{name}": value for name, value in mixture.items()},
            **{f"derived_validation_{name}": value for name, value in derived.items()},
        },
        "reason": {
            "rule": RULE if budget is None else RULE_OF_BUDGET,
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


def _choose(
    space: SearchSpace,
    penalty: CostPenalty | None,
    target: DeploymentTarget,
    probabilities: Tensor,
    derive: Callable[[Choices], nn.Module],
) -> tuple[Choices, BudgetReport | None]:
    """Choose the operators, within the budget if there is one, and report on the budget."""
    budget = None if penalty is None else penalty.budget
    if penalty is None or budget is None:
        return choose(probabilities), None
    kind, model = budget.kind, penalty.models[budget.kind]
    choices, measured = choose_measured(
        probabilities, model, budget.amount, lambda choices: target.cost(kind, derive(choices))
    )
    met = measured <= budget.amount
    advice = None if met else suggest_setting(space, budget, model, target)
    return choices, BudgetReport(budget.text, kind, round(model.predict(choices), 4), measured, met, advice)
