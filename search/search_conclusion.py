"""The end of a search: the derived network, what it measures, and the files that hold it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..cost import (
    Budget,
    BudgetReport,
    Choices,
    CostPenalty,
    Decisions,
    DeploymentTarget,
    SearchSpace,
    suggest_setting,
)
from ..downstream import keep_task_network
from ..drawing import draw
from ..genotypes import Genotype
from ..objectives import FusionLoss
from ..operators import (
    beyond_crops,
    build_network,
    count_flops,
    count_parameters,
    inherited_weights,
    parameter_sizes,
    save_network_folder,
)
from ..operators.build import Supernet
from ..operators.registration import operator_sources
from ..runtime.device import device_name
from ..runtime.files import remove_leftovers
from ..runtime.history import drawn_history
from ..runtime.loop import Row
from ..runtime.run_files import FRONT_FOLDER, PICTURES_FOLDER
from ..runtime.seeds import derive_seed
from ..training.first_stage import FirstStage, run_stages
from .candidates import BAND, SCORED, proposed
from .discretise import choose, choose_measured, reasons
from .probability_curves import draw_probabilities
from .relaxation import named_probabilities, relax_all
from .scorer import Scorer
from .search_config import SearchConfig
from .search_setup import SearchParts
from .search_validation import mean_losses, recalibrate
from .starting_point import even_logits

RECALIBRATION_BATCHES = 20
RULE = "the most probable candidate of each decision at the last step, with its runner-up"
RULE_OF_BUDGET = "the most probable candidates at the last step that meet the budget together"


def fused_by(
    network: nn.Module, first_stage: FirstStage | None, probabilities: Decisions | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function that fuses two (N, 1, H, W) sources by a network, or a supernet with these probabilities."""
    tensors = [] if probabilities is None else probabilities.tensors
    return lambda first, second: run_stages(network, first_stage, first, second, *tensors)[0]


def validation_losses(
    parts: SearchParts, fuse: Callable[[Tensor, Tensor], Tensor], scorer: Scorer | None = None
) -> dict[str, float]:
    """Average `inner_loss` and `outer_loss` of a search over the validation batches.

    Args:
        fuse: Function that fuses two (N, 1, H, W) sources.
        scorer: Task network whose loss is the outer one; None for `parts.outer`.
    """
    outer = _of_batches(parts.outer) if scorer is None else scorer.loss
    losses = {"inner_loss": _of_batches(parts.inner), "outer_loss": outer}
    with nullcontext() if scorer is None else scorer.evaluating():
        return mean_losses(lambda batch: fuse(batch.first, batch.second), parts.batches.validation(), losses)


def _of_batches(loss: FusionLoss) -> Callable[[Tensor, Any], Tensor]:
    return lambda fused, batch: loss(fused, batch.first, batch.second)


def conclude(
    config: SearchConfig,
    parts: SearchParts,
    supernet: Supernet,
    probabilities: Decisions,
    *,
    warnings: list[str],
    scorer: Scorer | None,
    announce: Callable[[str], None],
) -> Genotype:
    """Derive the network, measure it and write everything that belongs to it; the genotype comes last.

    Args:
        parts: The losses, the cost penalty, and the batches of a single process.
        supernet: The supernet with its searched weights.
        probabilities: Those of all decisions at the end of the search.
        warnings: Warnings of the guards during the search.
        scorer: The task network that scored the architecture, if there is one.
        announce: Called with a line before what takes a while.
    """
    run, space, device = config.run, config.space.search_space, probabilities.operators.device
    target = DeploymentTarget(config.cost.height, config.cost.width, device)

    def describe(choices: Choices) -> Genotype:
        name = run.resolve().name  # "." has no name of its own
        return config.for_task(replace(space.genotype(choices), name=name))

    def derive(choices: Choices) -> nn.Module:
        network = build_network(describe(choices)).to(device)
        network.load_state_dict(inherited_weights(supernet, choices.operators, network))
        return network

    first_stage = parts.first_stage
    mixture = validation_losses(parts, fused_by(supernet, first_stage, probabilities), scorer)
    downstream, sources = config.downstream, operator_sources(space.operators)

    def found(choices: Choices, budget: BudgetReport | None) -> tuple[Genotype, nn.Module]:
        network = derive(choices)
        recalibrate(network, parts.batches.weight(0, RECALIBRATION_BATCHES), first_stage)
        network.eval()
        derived = validation_losses(parts, fused_by(network, first_stage), scorer)
        time = budget.measured if budget and budget.kind == "ms" else target.cost("ms", network)
        described = describe(choices)
        genotype = config.described(
            described,
            data={"root": config.data.origin, **parts.batches.pairs.described},
            **({"operators": sources} if sources else {}),
            **({} if downstream is None else {"downstream": downstream.provenance(parts.batches.pairs.source.classes)}),
            estimator=config.search.estimator,
            steps=config.search.steps,
            parameters=count_parameters(network),
            flops_640x480=count_flops(network, 480, 640, described.inputs),
            latency={
                "milliseconds": round(time, 2),
                "height": target.height,
                "width": target.width,
                "device": device_name(device),
            },
            **({} if budget is None else {"budget": budget.provenance}),
            metrics={"supernet": {"mean": mixture}, "derived": {"mean": derived}},
            reason={
                "rule": RULE if budget is None else RULE_OF_BUDGET,
                **reasons(probabilities, space, choices),
            },
            warnings=warnings,
        )
        return genotype, network

    def inherited(choices: Choices) -> float:
        network = derive(choices).eval()
        return validation_losses(parts, fused_by(network, first_stage), scorer)["outer_loss"]

    for point in config.cost.parsed_front:
        announce(f"choosing the network of the front for {point.text}")
        chosen = _of_least_loss(config, parts.penalty, point, target, probabilities, derive, inherited)
        genotype, network = found(*(chosen or _choose(space, parts.penalty, point, target, probabilities, derive)))
        folder = front_folder(run, point)
        remove_leftovers(folder)
        if first_stage is not None:
            first_stage.keep(folder)
        save_network_folder(folder, replace(genotype, name=f"{genotype.name}-{folder.name}"), network)
    budget = None if parts.penalty is None else parts.penalty.budget
    genotype, network = found(*_choose(space, parts.penalty, budget, target, probabilities, derive))
    draw(genotype, run / PICTURES_FOLDER, parameter_sizes(network))
    with drawn_history(run) as history:
        draw_probabilities(history, run / PICTURES_FOLDER)
    if scorer is not None:
        keep_task_network(scorer.network, run)
    save_network_folder(run, genotype, network)
    return genotype


def front_folder(run: Path, budget: Budget) -> Path:
    """Return the folder of the network that a search keeps for a budget of its front."""
    return run / FRONT_FOLDER / budget.text.replace(" ", "")


def _of_least_loss(
    config: SearchConfig,
    penalty: CostPenalty | None,
    budget: Budget,
    target: DeploymentTarget,
    probabilities: Decisions,
    derive: Callable[[Choices], nn.Module],
    inherited: Callable[[Choices], float],
) -> tuple[Choices, BudgetReport] | None:
    """Choose of many networks that use up a budget the one with the least loss with the weights of the supernet.

    The probabilities are those for another budget, and the most probable network may be far below this one.

    Returns:
        The network and its cost; None where weights do not tell networks apart (`inherited_loss`), widths are fixed, or
        none of the networks drawn is within the budget.
    """
    space = config.space.search_space
    if penalty is None or config.search.mixture != "gumbel" or not space.width_options:
        return None
    model, largest = penalty.models[budget.kind], budget.amount
    even, seed = relax_all(even_logits(space), 1.0), derive_seed(config.seed, "front", 0)

    def trainable(network: Choices) -> bool:
        return beyond_crops(space.genotype(network), config.data.crop) is None

    def measure(choices: Choices) -> float:
        return target.cost(budget.kind, derive(choices))

    if (
        budget.kind == "ms"
    ):  # a prediction has a bias, which is about that of another network, and a few percent of noise
        likely = choose(probabilities)
        largest *= (1 - BAND) * min(1.0, model.predict(likely) / measure(likely))
    drawn = partial(proposed, even, [], space, model, ((1 - BAND) * largest, largest), SCORED, seed)
    for network in sorted(drawn(trainable) or drawn(), key=inherited):
        measured = measure(network)
        if measured <= budget.amount:
            return network, BudgetReport(budget.text, budget.kind, round(model.predict(network), 4), measured, met=True)
    return None


def _choose(
    space: SearchSpace,
    penalty: CostPenalty | None,
    budget: Budget | None,
    target: DeploymentTarget,
    probabilities: Decisions,
    derive: Callable[[Choices], nn.Module],
) -> tuple[Choices, BudgetReport | None]:
    """Choose the operators, within the budget if there is one, and report on the budget."""
    if penalty is None or budget is None:
        return choose(probabilities), None
    kind, model = budget.kind, penalty.models[budget.kind]
    choices, measured = choose_measured(
        probabilities, model, budget.amount, lambda choices: target.cost(kind, derive(choices))
    )
    met = measured <= budget.amount
    advice = None if met else suggest_setting(space, budget, model, target)
    return choices, BudgetReport(budget.text, kind, round(model.predict(choices), 4), measured, met, advice)


def status(row: Row, probabilities: Decisions, space: SearchSpace) -> str:
    """Write the loss and the most probable candidate of each decision, for the progress of a search."""
    leaders = []
    for decision in named_probabilities(probabilities, space).values():
        name = max(decision, key=decision.__getitem__)
        leaders.append(f"{name} {decision[name]:.2f}")
    return f"loss {row['inner_loss']:.4f}, leading: {' | '.join(leaders)}"
