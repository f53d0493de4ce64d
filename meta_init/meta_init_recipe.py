"""The meta-initialisation, from a genotype and tasks to weights that adapt: setup, step, validation, conclusion."""

import math
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..bilevel import META_GRADIENTS, MetaGradient, NonFiniteError
from ..bilevel.gradients import flatten, unflatten
from ..data.batch_stream import stream_batches
from ..data.fingerprint import fingerprint
from ..operators import save_network_folder
from ..runtime.distribution import Ranks
from ..runtime.errors import check_finite
from ..runtime.loop import Row, Scores, open_loop
from ..runtime.run_files import LAST_WEIGHTS_FILE
from ..runtime.schedules import warmed_cosine
from ..runtime.seeds import seed_everything
from ..runtime.weights import save_weights
from .episodes import Episode, EpisodeStream
from .meta_init_conclusion import MetaInitialisation, by_count, conclude, described
from .meta_init_config import LEARN_RATES, MetaInitConfig
from .meta_init_setup import MetaInitParts, MetaInitState, open_tasks, open_trials, set_up
from .meta_tasks import Task
from .rates import adaptation_of, adapting_layers, save_rates
from .trials import adaptation_curve, pair_loss


def meta_initialise(config: MetaInitConfig, *, resume: bool = False, overwrite: bool = False) -> MetaInitialisation:
    """Train the initial weights of a network, from which it adapts to each task in a few steps; write the run folder.

    The best weights are those with the least loss on validation pairs, averaged over the tasks that are trained on: as
    they are after plain training, and with a meta-learning algorithm after one and after all inner steps. Where
    `torchrun` started several processes, each takes its share of the tasks of every step, and the result equals that of
    one process to the bit.

    Args:
        config: The network, the tasks and the optimisation; `config.run` is the run folder.
        resume: Whether to go on from the run's checkpoint. The result is the same to the bit.
        overwrite: Whether to replace the run in the folder.

    Raises:
        UserError: If the config, the data, the device or the run folder cannot be used, or a loss is not finite.

    Example:
        >>> from pathlib import Path
        >>> config = MetaInitConfig(tasks={"mri-ct": {}, "mri-pet": {}}, data={"root": Path("data")})
        >>> result = meta_initialise(config)  # doctest: +SKIP
    """
    settings, data = config.meta, config.data
    with open_loop(config, resume=resume, overwrite=overwrite) as loop:
        ranks, device = loop.ranks, loop.device
        genotype, tasks = open_tasks(config, device)
        seed_everything(config.seed)
        state = set_up(config, genotype, device)
        loop.open_folder(
            pairs=sum(len(task.source) for task in tasks),
            fingerprint=lambda: fingerprint(
                (task.source.fingerprint(), task.blocks, task.validation) for task in tasks
            ),
            harmless=["meta.checkpoint_every"],
        )
        loop.start(state)
        trained = [task for task in tasks if task.weight]
        trials = open_trials(config, tasks, max(1, config.episode_steps), device)
        layers = adapting_layers(state.network, config.adapting_part)
        parts, own = MetaInitParts(genotype, trained, trials, layers), ranks.share(trained)
        stream = EpisodeStream(
            own,
            support=data.support,
            query=data.query,
            steps=config.episode_steps,
            crop=data.crop,
            seed=config.seed,
            pretrain=settings.pretrain,
        )
        drawn = stream_batches(stream, state.step, settings.all_steps, data.workers)

        def step() -> Row:
            episodes = [(task, episode.to(device)) for task, episode in zip(own, next(drawn), strict=True)]
            return _step(config, state, parts, episodes, ranks)

        loop.run(
            state,
            step=step,
            validate=partial(_validate, config, state, parts, ranks),
            remedy="inner.learning_rate or meta.learning_rate",
            validate_after=settings.pretrain,
            **config.rhythm | {"steps": settings.all_steps},
        )
        # The first process alone validates and knows the best step.
        return ranks.from_leader(lambda: conclude(config, genotype, state.network, tasks, state.best_step, device))


def _step(
    config: MetaInitConfig,
    state: MetaInitState,
    parts: MetaInitParts,
    own: Sequence[tuple[Task, Episode]],
    ranks: Ranks,
) -> Row:
    """Update the initial weights and the inner learning rates."""
    settings, trained = config.meta, parts.tasks
    plain = state.step < settings.pretrain
    weights, buffers = list(state.network.parameters()), _statistics(state.network.buffers())
    columns = [*weights, state.log_rates, *buffers, weights[0].new_zeros(2)]  # in this order, a row for each task
    rows = weights[0].new_zeros(len(own), sum(column.numel() for column in columns))
    state.network.train()
    for row, (task, episode) in zip(rows, own, strict=True):
        try:
            estimate = _meta_gradient(config, state, parts, task, episode)
        except NonFiniteError:  # raised after the exchange, so that no process waits for this one
            row.fill_(math.nan)
            continue
        by_log_rates = state.rates * (0 if estimate.rates is None else estimate.rates)
        losses = row.new_tensor([estimate.query_loss, estimate.support_loss])
        row.copy_(flatten([*estimate.initial, by_log_rates, *_statistics(estimate.buffers), losses]))
    table = ranks.gather(rows, len(trained))
    query, support = table[:, -2:].T.tolist()
    check_finite({f"loss of {task.name} or its gradient": value for task, value in zip(trained, query, strict=True)})
    shares = table.new_tensor([task.weight for task in trained])
    # Summed over the tasks in their order, whoever computed them.
    means = unflatten((table * (shares / shares.sum()).unsqueeze(1)).sum(0), columns)
    for parameter, gradient in zip((*weights, state.log_rates), means, strict=False):
        parameter.grad = gradient
    if plain:  # the optimiser is to begin with the rates when they begin to be learnt
        state.log_rates.grad = None
    with torch.no_grad():
        for buffer, mean in zip(buffers, means[len(weights) + 1 : -1], strict=True):
            buffer.copy_(mean)
    norm = nn.utils.clip_grad_norm_(weights, settings.clip)
    part = (state.step, settings.pretrain) if plain else (state.step - settings.pretrain, settings.steps)
    factor = warmed_cosine(1.0, *part, settings.warmup)
    highest = settings.pretrain_learning_rate if plain else settings.learning_rate, settings.rate_learning_rate
    for group, learning_rate in zip(state.optimizer.param_groups, highest, strict=True):
        group["lr"] = learning_rate * factor
    state.optimizer.step()
    loss, gradient_norm, rate = torch.stack([means[-1][0], norm, state.log_rates.detach().mean().exp()]).tolist()
    return {
        "loss": loss,
        "query": {task.name: value for task, value in zip(trained, query, strict=True)},
        "support": {task.name: value for task, value in zip(trained, support, strict=True)},
        "gradient_norm": gradient_norm,
        "rate": rate,
        "learning_rate": highest[0] * factor,
    }


def _meta_gradient(
    config: MetaInitConfig, state: MetaInitState, parts: MetaInitParts, task: Task, episode: Episode
) -> MetaGradient:
    # Without steps to take, FOMAML's gradient is that of the query loss itself.
    inner, algorithm = config.inner, config.meta.algorithm if episode.support else "fomaml"
    learnt = inner.learn_rates and algorithm in LEARN_RATES and bool(episode.support)
    adaptation = adaptation_of(parts.layers, state.rates.requires_grad_(learnt), inner.optimizer)
    options = {"strength": inner.strength, "iterations": inner.iterations} if algorithm == "imaml" else {}
    loss = partial(pair_loss, task.loss)
    return META_GRADIENTS[algorithm](state.network, loss, episode.support, episode.query, adaptation, **options)


def _statistics(buffers: Iterable[Tensor]) -> list[Tensor]:
    """Take the buffers that are averaged over the tasks, which hold floating-point numbers."""
    return [buffer for buffer in buffers if buffer.is_floating_point()]


def _validate(config: MetaInitConfig, state: MetaInitState, parts: MetaInitParts, ranks: Ranks) -> Scores | None:
    """Score the adaptation to all tasks; keep the weights as the last ones and, if none did better, as the best."""
    if not ranks.leads:
        return None
    steps, run = config.episode_steps, config.run
    adaptation = adaptation_of(parts.layers, state.rates, config.inner.optimizer)
    curves = {
        trial.task.name: adaptation_curve(state.network, adaptation, trial, {0, 1, steps}) for trial in parts.trials
    }
    total = sum(task.weight for task in parts.tasks)
    ends = {min(1, steps), steps}
    score = sum(task.weight * curves[task.name][count] for task in parts.tasks for count in ends) / total / len(ends)
    check_finite({"validation loss": score})
    scores = {"mean": {"loss": score}} | {name: by_count(curve) for name, curve in curves.items()}
    save_weights(run / LAST_WEIGHTS_FILE, state.network.state_dict(), {"genotype": parts.genotype.name})
    if score < state.best_loss:
        state.best_loss, state.best_step = score, state.step - 1
        save_rates(run, parts.layers, state.rates)
        genotype = described(config, parts.genotype, state.network, parts.tasks, state.best_step, scores)
        save_network_folder(run, genotype, state.network)
    return scores
