"""Trials of an initialisation: the loss on validation pairs after each step of an adaptation to each task."""

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..bilevel import Adaptation, adapt, restored
from ..data import PairBatch
from ..objectives import FusionLoss
from ..runtime.progress import Progress
from ..runtime.seeds import derive_seed
from .episodes import Episode, EpisodeStream, validation_query
from .meta_tasks import Task

Curve = dict[int, float]  # by number of steps, the loss after them


class Trial(NamedTuple):
    """The episodes that test an initialisation for a task.

    Attributes:
        episodes: Episodes with support batches of training pairs; all have the same query batch, of validation pairs.
    """

    task: Task
    episodes: Sequence[Episode]


def pair_loss(loss: FusionLoss, network: nn.Module, batch: PairBatch) -> Tensor:
    """Fuse a batch, (N, 1, H, W) in [0, 1], and return the fusion loss, a scalar."""
    return loss(network(batch.first, batch.second), batch.first, batch.second)


def make_trials(
    tasks: Sequence[Task],
    *,
    support: int,
    query: int,
    crop: int,
    steps: int,
    episodes: int,
    seed: int,
    device: torch.device,
) -> list[Trial]:
    """Cut the batches of the trials of each task, which are the same throughout a run."""
    stream = EpisodeStream(
        tasks, support=support, query=query, steps=steps, crop=crop, seed=derive_seed(seed, "validation")
    )
    trials = []
    for task in tasks:
        query_batch = validation_query(task, crop, seed).to(device)
        drawn = [stream.episode(task, number, steps).to(device) for number in range(episodes)]
        trials.append(Trial(task, [Episode(episode.support, query_batch) for episode in drawn]))
    return trials


def adaptation_curve(network: nn.Module, adaptation: Adaptation, trial: Trial, steps: Collection[int]) -> Curve:
    """Return the query loss after some numbers of steps, averaged over the episodes; the weights are restored."""
    curves = []
    for episode in trial.episodes:
        with restored(network):
            curves.append(adapt_and_score(network, adaptation, trial.task.loss, episode.support, episode.query, steps))
    return {count: sum(curve[count] for curve in curves) / len(curves) for count in curves[0]}


def adapt_and_score(
    network: nn.Module,
    adaptation: Adaptation,
    fusion_loss: FusionLoss,
    support: Iterable[PairBatch],
    query: PairBatch,
    steps: Collection[int],
    progress: Progress | None = None,
    *,
    keep_best: bool = False,
) -> Curve:
    """Adapt a network in place; return its query loss in evaluation mode after each number of steps in `steps`.

    Args:
        support: Batches of the steps, at least as many as the largest number.
        keep_best: Whether the network ends with the weights of the least of these losses, not with the last weights.
    """
    loss, training = partial(pair_loss, fusion_loss), network.training
    optimizer = adaptation.build_optimizer()
    curve: Curve = {}
    best: dict[str, Tensor] = {}
    done, batches = 0, iter(support)
    for count in sorted(steps):
        network.train()
        adapt(network, loss, islice(batches, count - done), optimizer)
        network.eval()
        with torch.no_grad():
            curve[count] = loss(network, query).item()
        if keep_best and curve[count] <= min(curve.values()):
            best = {name: value.clone() for name, value in network.state_dict().items()}
        if progress is not None:
            for _ in range(count - done):
                progress.advance(f"validation loss {curve[count]:.4f}")
        done = count
    if best:
        network.load_state_dict(best)
    network.train(training)
    return curve
