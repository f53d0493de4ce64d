"""The end of a meta-initialisation: how its best weights and random weights adapt, written to files."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..genotypes import Genotype, save_genotype
from ..operators import build_network, count_parameters
from ..runtime.history import drawn_history
from ..runtime.loop import Scores
from ..runtime.run_files import GENOTYPE_FILE, PICTURES_FOLDER
from ..runtime.weights import load_into
from .adaptation_curves import draw_adaptation, draw_training
from .meta_init_config import MetaInitConfig
from .meta_init_setup import open_trials
from .meta_tasks import Task
from .rates import adaptation_of, adapting_layers, load_rates, plain_adaptation
from .trials import Curve, adaptation_curve

SHOWN_STEPS = (0, 1, 2, 3, 5, 8, 12, 20)


class MetaInitialisation(NamedTuple):
    """The result of a meta-initialisation.

    Attributes:
        genotype: The network with its provenance, as in `genotype.yaml`.
        best_step: The step after which the network had its best weights, from 0.
        curves: For each task, the validation loss after some steps of adaptation from the best weights.
        fresh: The validation losses from random weights, by `plain_adaptation`.
    """

    genotype: Genotype
    best_step: int
    curves: dict[str, Curve]
    fresh: dict[str, Curve]


def conclude(
    config: MetaInitConfig,
    genotype: Genotype,
    network: nn.Module,
    tasks: Sequence[Task],
    best_step: int,
    device: torch.device,
) -> MetaInitialisation:
    """Adapt the best weights and random weights to every task, and draw; the genotype comes last.

    Args:
        network: The network on its device; its weights are replaced by the best ones.
        tasks: All tasks, including those that were held out.
    """
    run = config.run
    load_into(network, run)
    layers = adapting_layers(network, config.adapting_part)
    adaptation = adaptation_of(layers, load_rates(run, layers).to(device), config.inner.optimizer)
    torch.manual_seed(config.seed)
    fresh_network = build_network(genotype).to(device)
    fresh_adaptation = plain_adaptation(fresh_network)
    trials = open_trials(config, tasks, SHOWN_STEPS[-1], device)
    curves = {trial.task.name: adaptation_curve(network, adaptation, trial, SHOWN_STEPS) for trial in trials}
    fresh = {trial.task.name: adaptation_curve(fresh_network, fresh_adaptation, trial, SHOWN_STEPS) for trial in trials}
    draw_adaptation({"meta-initialisation": curves, "random weights, Adam": fresh}, run / PICTURES_FOLDER)
    with drawn_history(run) as history:
        draw_training(history, run / PICTURES_FOLDER)
    scores = {name: by_count(curve) for name, curve in curves.items()}
    trained = [task for task in tasks if task.weight]
    genotype = described(config, genotype, network, trained, best_step, scores)
    save_genotype(genotype, run / GENOTYPE_FILE)
    return MetaInitialisation(genotype, best_step, curves, fresh)


def by_count(curve: Curve) -> dict[str, float]:
    """Name the losses of an adaptation for history and provenance: "after 5" and so on."""
    return {f"after {count}": value for count, value in curve.items()}


def described(
    config: MetaInitConfig,
    genotype: Genotype,
    network: nn.Module,
    tasks: Sequence[Task],
    best_step: int,
    scores: Scores,
) -> Genotype:
    """Add to the genotype how its weights were made.

    Args:
        tasks: The tasks that are trained on.
    """
    return config.described(
        genotype,
        data={"root": config.data.origin, **{task.name: len(task.training) for task in tasks}},
        algorithm=config.meta.algorithm,
        steps=config.meta.steps,
        best_step=best_step,
        parameters=count_parameters(network),
        metrics={"best": scores},
        architecture=genotype.architecture,
    )
