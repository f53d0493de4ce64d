"""What a meta-initialisation leaves behind: the best weights with their rates and genotype, and how they adapt."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import __version__
from ..data.pairs_section import origin_of
from ..genotypes import Genotype, load_genotype, save_genotype
from ..operators import build_network, count_parameters
from ..runtime.config import config_hash
from ..runtime.history import HISTORY_FILE, read_history
from ..runtime.weights import load_into, save_weights
from .adaptation_curves import draw_adaptation, draw_training
from .meta_init_config import MetaInitConfig
from .meta_tasks import Task
from .rates import adaptation_of, adapting_layers, load_rates, plain_adaptation, save_rates
from .trials import Curve, adaptation_curve, make_trials

EPISODES = 2
STEPS = (0, 1, 2, 3, 5, 8, 12, 20)


class MetaInitialisation(NamedTuple):
    """What a meta-initialisation ends with.

    Attributes:
        genotype: With its provenance, as in `genotype.yaml`.
        best_step: The step after which it had its best weights.
        curves: By task, the validation loss after some steps of adaptation from the best weights.
        fresh: The same from random weights, by `plain_adaptation`.
    """

    genotype: Genotype
    best_step: int
    curves: dict[str, Curve]
    fresh: dict[str, Curve]


def keep_best(
    config: MetaInitConfig,
    genotype: Genotype,
    network: nn.Module,
    layers: Mapping[str, list[nn.Parameter]],
    rates: Tensor,
    tasks: Sequence[Task],
    step: int,
) -> None:
    """Write the best weights so far, so that the folder can be used while the training goes on; the genotype is last.

    Args:
        config: of the meta-initialisation.
        genotype: what is trained.
        network: with the best weights.
        layers: those that adapt.
        rates: (layers,), their learning rates.
        tasks: those that are trained on.
        step: the step after which it had these weights.
    """
    save_weights(config.run / "weights.safetensors", network.state_dict(), {"genotype": genotype.name})
    save_rates(config.run, layers, rates)
    provenance: dict[str, Any] = {
        "timfuse": __version__,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data": {"root": origin_of([config.data.root])} | {task.name: len(task.training) for task in tasks},
        "genotype": config.genotype,
        "init": config.init and str(config.init),
        "algorithm": config.meta.algorithm,
        "steps": config.meta.steps,
        "best_step": step,
        "parameters": count_parameters(network),
        "architecture": genotype.provenance.get("architecture", genotype.provenance),
    }
    save_genotype(replace(genotype, provenance=provenance), config.run / "genotype.yaml")


def conclude(
    config: MetaInitConfig, network: nn.Module, tasks: Sequence[Task], step: int, device: torch.device
) -> MetaInitialisation:
    """Show how the best weights adapt to every task beside random weights, and draw; the genotype comes last.

    Args:
        config: of the meta-initialisation.
        network: gets the best weights.
        tasks: all of them, those held out too.
        step: the step after which it had its best weights.
        device: where to compute.

    Returns:
        The genotype, the step and the curves.
    """
    run = config.run
    genotype = load_genotype(run)
    load_into(network, run / "weights.safetensors")
    layers = adapting_layers(network, config)
    adaptation = adaptation_of(layers, load_rates(run, layers).to(device), config.inner)
    torch.manual_seed(config.seed)
    fresh_network = build_network(genotype).to(device)
    fresh_adaptation = plain_adaptation(fresh_network)
    trials = make_trials(tasks, config.data, steps=STEPS[-1], episodes=EPISODES, seed=config.seed, device=device)
    curves = {trial.task.name: adaptation_curve(network, adaptation, trial, STEPS) for trial in trials}
    fresh = {trial.task.name: adaptation_curve(fresh_network, fresh_adaptation, trial, STEPS) for trial in trials}
    draw_adaptation({"meta-initialisation": curves, "random weights, Adam": fresh}, run / "pictures")
    draw_training(read_history(run / HISTORY_FILE), run / "pictures")
    scores = {name: {f"after {count}": value for count, value in curve.items()} for name, curve in curves.items()}
    genotype = replace(genotype, provenance=genotype.provenance | {"adaptation": scores})
    save_genotype(genotype, run / "genotype.yaml")
    return MetaInitialisation(genotype, step, curves, fresh)
