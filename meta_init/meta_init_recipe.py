"""The meta-initialisation, from a genotype and tasks to weights that adapt: setup, the steps, conclusion."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..bilevel import META_GRADIENTS, MetaGradient, NonFiniteError
from ..bilevel.gradients import flatten, unflatten
from ..data.batch_stream import stream_batches
from ..data.fingerprint import fingerprint
from ..genotypes import Genotype, load_genotype
from ..operators import build_network
from ..runtime.checkpoint import capture_rng, restore_rng, restoring
from ..runtime.device import select_device
from ..runtime.distribution import Ranks, open_ranks
from ..runtime.errors import StoppedError, UserError
from ..runtime.interruption import deferred_interrupt
from ..runtime.led_run import LedRun, open_led_run
from ..runtime.memory import keep_freed_memory
from ..runtime.schedules import warmed_cosine
from ..runtime.seeds import seed_everything
from ..runtime.weights import load_into, save_weights
from .episodes import Episode, EpisodeStream
from .meta_init_conclusion import MetaInitialisation, conclude, keep_best
from .meta_init_config import LEARN_RATES, MetaInitConfig
from .meta_tasks import Task, open_tasks
from .rates import adaptation_of, adapting_layers
from .trials import Trial, adaptation_curve, make_trials, pair_loss

HARMLESS = ("run", "data.workers", "data.cache_megabytes", "meta.checkpoint_every")  # may differ on resuming
VALIDATION_EPISODES = 2


def meta_initialise(config: MetaInitConfig, *, resume: bool = False, overwrite: bool = False) -> MetaInitialisation:
    """Train the initial weights of a network, from which it adapts to each task in a few steps; write the run folder.

    The best weights are those with the lowest loss on validation pairs after one and after all inner steps, averaged
    over these two and the tasks that are trained on. Where `torchrun` started several processes, each takes its share
    of the tasks of every step, and the result is to the bit that of one process.

    Args:
        config: what to train, on what and how; `config.run` is the folder.
        resume: go on from the run's checkpoint, to the bit.
        overwrite: replace the run that is in the folder.

    Returns:
        The genotype as written to `genotype.yaml`, and how the best weights adapt.

    Raises:
        UserError: the config, the data, the device or the run folder cannot be used, or a loss became non-finite.
    """
    keep_freed_memory()
    with open_ranks() as ranks:
        device = select_device(config.device, ranks.local)
        genotype = load_genotype(config.genotype)
        if genotype.network != "fusion":
            raise UserError(
                f"{genotype.name} is a {genotype.network} network; a meta-initialisation is for fusion networks"
            )
        tasks = open_tasks(config.data, config.used_tasks, config.seed)
        seed_everything(config.seed)
        state = _setup(config, genotype, device)
        with open_led_run(
            config.run,
            config,
            ranks,
            resume=resume,
            overwrite=overwrite,
            harmless=HARMLESS,
            pairs=sum(len(task.source) for task in tasks),
            fingerprint=lambda: fingerprint(
                (task.source.fingerprint(), task.blocks, task.validation) for task in tasks
            ),
        ) as run:
            if run.resumes:
                _restore(state, run.load_checkpoint(), run.path)
            run.start("meta-initialising", config.meta.all_steps, state.step)
            _fit(config, state, genotype, tasks, run)
            # The best step is known to the first process alone, which validates.
            return ranks.from_leader(lambda: conclude(config, state.network, tasks, state.best_step, device))


@dataclass
class _State:
    """Everything that a meta-initialisation changes: what a checkpoint holds, beside the random generators."""

    network: nn.Module
    layers: dict[str, list[nn.Parameter]]  # those that adapt
    log_rates: Tensor  # (layers,), logarithms of their learning rates
    optimizer: torch.optim.Optimizer
    step: int = 0
    best_loss: float = math.inf
    best_step: int = -1

    @property
    def rates(self) -> Tensor:
        """The inner learning rates, (layers,)."""
        return self.log_rates.detach().exp()


def _setup(config: MetaInitConfig, genotype: Genotype, device: torch.device) -> _State:
    network = build_network(genotype).to(device)
    if config.init is not None:
        path = config.init.expanduser()
        load_into(network, path / "weights.safetensors" if path.is_dir() else path)
    layers = adapting_layers(network, config)
    log_rates = torch.full((len(layers),), math.log(config.inner.learning_rate), device=device, requires_grad=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.meta.learning_rate)
    optimizer.add_param_group({"params": [log_rates]})
    return _State(network, layers, log_rates, optimizer)


def _fit(
    config: MetaInitConfig,
    state: _State,
    genotype: Genotype,
    tasks: Sequence[Task],
    run: LedRun,
) -> None:
    """Run the steps that are left, with validations and checkpoints now and then and at the end."""
    settings, data, device, ranks = config.meta, config.data, state.log_rates.device, run.ranks
    trained = [task for task in tasks if task.weight]
    own = ranks.share(trained)
    stream = EpisodeStream(
        own,
        support=data.support,
        query=data.query,
        steps=config.inner.steps,
        crop=data.crop,
        seed=config.seed,
        pretrain=settings.pretrain,
    )
    trials = make_trials(
        tasks, data, steps=max(1, config.inner.steps), episodes=VALIDATION_EPISODES, seed=config.seed, device=device
    )
    drawn = stream_batches(stream, state.step, settings.all_steps, data.workers)
    validated = ""
    with deferred_interrupt() as interrupted:
        while state.step < settings.all_steps:
            episodes = [(task, episode.to(device)) for task, episode in zip(own, next(drawn), strict=True)]
            row = _step(config, state, trained, episodes, ranks)
            last = state.step == settings.all_steps - 1
            done = state.step + 1 - settings.pretrain
            if ranks.leads and (last or (done >= 0 and done % settings.validate_every == 0)):
                row["validation"] = scores = _validate(config, state, genotype, trained, trials)
                validated = f", validated: {scores['mean']['loss']:.4f}"
            state.step += 1
            run.log(state.step - 1, row)
            run.advance(f"loss {row['loss']:.4f}{validated}")
            stop = ranks.agree(interrupted())
            if state.step % settings.checkpoint_every == 0 or last or stop:
                run.save_checkpoint(_captured(state))
            if stop:
                raise StoppedError(f"stopped before step {state.step}; go on with --resume")


def _step(
    config: MetaInitConfig,
    state: _State,
    trained: Sequence[Task],
    own: Sequence[tuple[Task, Episode]],
    ranks: Ranks,
) -> dict[str, Any]:
    """Update the initial weights and the inner learning rates; return what to log."""
    settings = config.meta
    plain = state.step < settings.pretrain
    weights, buffers = list(state.network.parameters()), _statistics(state.network.buffers())
    parts = [*weights, state.log_rates, *buffers, weights[0].new_zeros(2)]  # in this order, a row for each task
    rows = weights[0].new_zeros(len(own), sum(part.numel() for part in parts))
    state.network.train()
    for row, (task, episode) in zip(rows, own, strict=True):
        try:
            estimate = _meta_gradient(config, state, task, episode)
        except NonFiniteError:  # told after the processes have met again, so that none waits for this one
            row.fill_(math.nan)
            continue
        by_log_rates = state.rates * (0 if estimate.rates is None else estimate.rates)
        losses = row.new_tensor([estimate.query_loss, estimate.support_loss])
        row.copy_(flatten([*estimate.initial, by_log_rates, *_statistics(estimate.buffers), losses]))
    table = ranks.gather(rows, len(trained))
    query, support = table[:, -2:].T.tolist()
    _check_finite(state.step, trained, query)
    shares = table.new_tensor([task.weight for task in trained])
    # Summed over the tasks in their order, whoever computed them.
    means = unflatten((table * (shares / shares.sum()).unsqueeze(1)).sum(0), parts)
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


def _meta_gradient(config: MetaInitConfig, state: _State, task: Task, episode: Episode) -> MetaGradient:
    # Without steps to take, FOMAML's gradient is that of the query loss itself.
    inner, algorithm = config.inner, config.meta.algorithm if episode.support else "fomaml"
    learnt = inner.learn_rates and algorithm in LEARN_RATES and bool(episode.support)
    adaptation = adaptation_of(state.layers, state.rates.requires_grad_(learnt), inner)
    options = {"strength": inner.strength, "iterations": inner.iterations} if algorithm == "imaml" else {}
    loss = partial(pair_loss, task.loss)
    return META_GRADIENTS[algorithm](state.network, loss, episode.support, episode.query, adaptation, **options)


def _check_finite(step: int, tasks: Sequence[Task], losses: Sequence[float]) -> None:
    for task, loss in zip(tasks, losses, strict=True):
        if not math.isfinite(loss):
            raise UserError(
                f"step {step}, task {task.name}: the loss or its gradient is not finite; lower inner.learning_rate or"
                " meta.learning_rate and start anew with --overwrite"
            )


def _statistics(buffers: Iterable[Tensor]) -> list[Tensor]:
    """Take the buffers that are averaged over the tasks: those of floating-point numbers."""
    return [buffer for buffer in buffers if buffer.is_floating_point()]


def _validate(
    config: MetaInitConfig, state: _State, genotype: Genotype, tasks: Sequence[Task], trials: Sequence[Trial]
) -> dict[str, dict[str, float]]:
    """Score the adaptation to all tasks, and keep the weights as the last ones and, if none did better, as the best."""
    adaptation = adaptation_of(state.layers, state.rates, config.inner)
    steps = {0, 1, config.inner.steps}
    curves = {trial.task.name: adaptation_curve(state.network, adaptation, trial, steps) for trial in trials}
    total = sum(task.weight for task in tasks)
    ends = {min(1, config.inner.steps), config.inner.steps}
    score = sum(task.weight * curves[task.name][count] for task in tasks for count in ends) / total / len(ends)
    if not math.isfinite(score):
        raise UserError(
            f"step {state.step}: the validation loss is not finite; lower inner.learning_rate or meta.learning_rate"
            " and start anew with --overwrite"
        )
    save_weights(config.run / "weights-last.safetensors", state.network.state_dict(), {"genotype": genotype.name})
    if score < state.best_loss:
        state.best_loss, state.best_step = score, state.step
        keep_best(config, genotype, state.network, state.layers, state.rates, tasks, state.step)
    return {"mean": {"loss": score}} | {
        name: {f"after {count}": value for count, value in curve.items()} for name, curve in curves.items()
    }


def _captured(state: _State) -> dict[str, Any]:
    return {
        "step": state.step,
        "network": state.network.state_dict(),
        "log_rates": state.log_rates.detach(),
        "optimizer": state.optimizer.state_dict(),
        "best_loss": state.best_loss,
        "best_step": state.best_step,
        "rng": capture_rng(),
    }


def _restore(state: _State, saved: dict[str, Any], run: Path) -> None:
    with restoring(run):
        state.network.load_state_dict(saved["network"])
        with torch.no_grad():
            state.log_rates.copy_(saved["log_rates"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.best_loss, state.best_step = saved["best_loss"], saved["best_step"]
        state.step = saved["step"]
        restore_rng(saved["rng"])
