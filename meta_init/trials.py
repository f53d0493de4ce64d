"""How an initialisation adapts: the loss on validation pairs after each step of an adaptation to each task."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..bilevel import Adaptation, adapt, restored
from ..data import PairBatch
from ..objectives import FusionLoss
from ..runtime.progress import Progress
from ..runtime.seeds import derive_seed
from .episodes import Episode, EpisodeStream, validation_query
from .meta_init_config import EpisodeDataSection
from .meta_tasks import Task

Curve = dict[int, float]  # by number of steps, the loss after them


class Trial(NamedTuple):
    """What an initialisation is tried on.

    Attributes:
        task: The task.
        episodes: Their support batches are of training pairs; the query batch is of validation pairs, the same in all.
    """

    task: Task
    episodes: Sequence[Episode]


def pair_loss(loss: FusionLoss, network: nn.Module, batch: PairBatch) -> Tensor:
    """Score what a network fuses of a batch, by a scalar.

    Args:
        loss: The fusion loss.
        network: Called as network(first, second).
        batch: The sources.
    """
    return loss(network(batch.first, batch.second), batch.first, batch.second)


def make_trials(
    tasks: Sequence[Task], data: EpisodeDataSection, *, steps: int, episodes: int, seed: int, device: torch.device
) -> list[Trial]:
    """Cut the batches of the trials, which are the same throughout a run.

    Args:
        tasks: The tasks.
        data: Sizes of batches and crops.
        steps: Support batches in an episode.
        episodes: How many episodes of each task.
        seed: The run's seed.
        device: Where the batches go.

    Returns:
        A trial of each task.
    """
    stream = EpisodeStream(
        tasks,
        support=data.support,
        query=data.query,
        steps=steps,
        crop=data.crop,
        seed=derive_seed(seed, "validation"),
    )
    trials = []
    for task in tasks:
        query = validation_query(task, data.crop, seed).to(device)
        drawn = [stream.episode(task, number, steps).to(device) for number in range(episodes)]
        trials.append(Trial(task, [Episode(episode.support, query) for episode in drawn]))
    return trials


def adaptation_curve(network: nn.Module, adaptation: Adaptation, trial: Trial, steps: Collection[int]) -> Curve:
    """Score the adaptation to a task; the network gets its weights back.

    Args:
        network: Holds the initial weights.
        adaptation: How to step.
        trial: The task.
        steps: After how many steps to score, from 0; the episodes must hold as many support batches.

    Returns:
        By number of steps the loss on the query batch, mean over the episodes.
    """
    curves = []
    for episode in trial.episodes:
        with restored(network):
            curves.append(adapt_and_score(network, adaptation, trial.task.loss, episode, steps))
    return {count: sum(curve[count] for curve in curves) / len(curves) for count in curves[0]}


def adapt_and_score(
    network: nn.Module,
    adaptation: Adaptation,
    fusion_loss: FusionLoss,
    episode: Episode,
    steps: Collection[int],
    progress: Progress | None = None,
) -> Curve:
    """Adapt a network in place, and score it on the way as it will be used: in evaluation mode.

    Args:
        network: Holds the initial weights, and then the adapted ones.
        adaptation: How to step.
        fusion_loss: What to minimise.
        episode: A support batch for each step, and the query batch.
        steps: After how many steps to score, from 0.
        progress: Advanced after each stretch of steps, by their number.

    Returns:
        By number of steps the loss on the query batch.
    """
    loss, training = partial(pair_loss, fusion_loss), network.training
    optimizer = adaptation.build_optimizer()
    curve: Curve = {}
    done = 0
    for count in sorted(steps):
        network.train()
        adapt(network, loss, episode.support[done:count], optimizer)
        network.eval()
        with torch.no_grad():
            curve[count] = loss(network, episode.query).item()
        if progress is not None:
            for _ in range(count - done):
                progress.advance(f"validation loss {curve[count]:.4f}")
        done = count
    network.train(training)
    return curve
