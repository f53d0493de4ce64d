"""The meta-initialisation, from a genotype and tasks to weights that adapt: setup, step, validation, conclusion."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..bilevel import META_GRADIENTS, MetaGradient, NonFiniteError
from ..bilevel.gradients import flatten, unflatten
from ..data.batch_stream import stream_batches
from ..data.fingerprint import fingerprint
from ..genotypes import Genotype, load_genotype, save_genotype
from ..operators import build_network, count_parameters, save_network_folder
from ..runtime.distribution import Ranks
from ..runtime.errors import UserError, check_finite
from ..runtime.history import read_history
from ..runtime.loop import Row, Scores, open_loop
from ..runtime.run_files import GENOTYPE_FILE, HISTORY_FILE, LAST_WEIGHTS_FILE, PICTURES_FOLDER
from ..runtime.schedules import warmed_cosine
from ..runtime.seeds import seed_everything
from ..runtime.weights import load_into, save_weights
from .adaptation_curves import draw_adaptation, draw_training
from .episodes import Episode, EpisodeStream
from .meta_init_config import LEARN_RATES, MetaInitConfig
from .meta_tasks import Task
from .rates import adaptation_of, adapting_layers, load_rates, plain_adaptation, save_rates
from .trials import Curve, Trial, adaptation_curve, make_trials, pair_loss

EPISODES = 2  # of each task in a validation
SHOWN_STEPS = (0, 1, 2, 3, 5, 8, 12, 20)


Layers = Mapping[str, list[nn.Parameter]]  # those that adapt, by name


class MetaInitialisation(NamedTuple):
    """The result of a meta-initialisation.

    Attributes:
        genotype: The network with its provenance, as in `genotype.yaml`.
        best_step: The step after which the network had its best weights, from 0.
        curves: For each task, the validation loss after some steps of adaptation from the best weights.
        fresh: The same from random weights, by `plain_adaptation`.
    """

    genotype: Genotype
    best_step: int
    curves: dict[str, Curve]
    fresh: dict[str, Curve]


@dataclass
class _State:
    """Everything that a step or a validation changes."""

    network: nn.Module
    log_rates: Tensor  # (layers,), logarithms of the inner learning rates
    optimizer: torch.optim.Optimizer
    step: int = 0
    best_loss: float = math.inf
    best_step: int = -1

    @property
    def rates(self) -> Tensor:
        """The inner learning rates, (layers,)."""
        return self.log_rates.detach().exp()


def meta_initialise(config: MetaInitConfig, *, resume: bool = False, overwrite: bool = False) -> MetaInitialisation:
    """Train the initial weights of a network, from which it adapts to each task in a few steps; write the run folder.

    The best weights are those with the least loss on validation pairs after one and after all inner steps, averaged
    over these two and the tasks that are trained on. Where `torchrun` started several processes, each takes its share
    of the tasks of every step, and the result equals that of one process to the bit.

    Args:
        config: The network, the tasks and the optimisation; `config.run` is the run folder.
        resume: Whether to go on from the run's checkpoint. The result is the same to the bit.
        overwrite: Whether to replace the run in the folder.

    Returns:
        The genotype as written to `genotype.yaml`, and how the best weights adapt.

    Raises:
        UserError: If the config, the data, the device or the run folder cannot be used, or a loss is not finite.
    """
    settings, data = config.meta, config.data
    with open_loop(config, resume=resume, overwrite=overwrite) as loop:
        ranks, device = loop.ranks, loop.device
        genotype = load_genotype(config.genotype)
        if genotype.network != "fusion":
            raise UserError(
                f"{genotype.name} is a {genotype.network} network; a meta-initialisation is for fusion networks"
            )
        tasks = _open_tasks(config)
        trained = [task for task in tasks if task.weight]
        seed_everything(config.seed)
        state = _setup(config, genotype, device)
        layers = adapting_layers(state.network, config.adapting_part)
        loop.open_folder(
            pairs=sum(len(task.source) for task in tasks),
            fingerprint=lambda: fingerprint(
                (task.source.fingerprint(), task.blocks, task.validation) for task in tasks
            ),
            harmless=["meta.checkpoint_every"],
        )
        loop.start(state)
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
        trials = _trials(config, tasks, max(1, config.inner.steps), device)
        drawn = stream_batches(stream, state.step, settings.all_steps, data.workers)

        def step() -> Row:
            episodes = [(task, episode.to(device)) for task, episode in zip(own, next(drawn), strict=True)]
            return _step(config, state, layers, trained, episodes, ranks)

        loop.run(
            state,
            step=step,
            validate=partial(_validate, config, state, layers, genotype, trained, trials, ranks),
            remedy="inner.learning_rate or meta.learning_rate",
            validate_after=settings.pretrain,
            **config.rhythm | {"steps": settings.all_steps},
        )
        # The first process alone validates and knows the best step.
        return ranks.from_leader(lambda: _conclude(config, genotype, state.network, tasks, state.best_step, device))


def _open_tasks(config: MetaInitConfig) -> list[Task]:
    tasks = []
    for name, section in config.used_tasks.items():
        task = config.data.open_task(name, section, config.seed)
        count, wanted = len(task.training), config.data.support + config.data.query
        if count < wanted:
            raise UserError(
                f"task {name} has {count} training pairs, fewer than data.support + data.query = {wanted}; "
                "lower these or leave the task out"
            )
        tasks.append(task)
    return tasks


def _trials(config: MetaInitConfig, tasks: Sequence[Task], steps: int, device: torch.device) -> list[Trial]:
    sizes = config.data.model_dump(include={"support", "query", "crop"})
    return make_trials(tasks, **sizes, steps=steps, episodes=EPISODES, seed=config.seed, device=device)


def _setup(config: MetaInitConfig, genotype: Genotype, device: torch.device) -> _State:
    network = build_network(genotype).to(device)
    if config.init is not None:
        load_into(network, config.init.expanduser())
    count, rate = len(adapting_layers(network, config.adapting_part)), config.inner.learning_rate
    log_rates = torch.full((count,), math.log(rate), device=device, requires_grad=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.meta.learning_rate)
    optimizer.add_param_group({"params": [log_rates]})
    return _State(network, log_rates, optimizer)


def _step(
    config: MetaInitConfig,
    state: _State,
    layers: Layers,
    trained: Sequence[Task],
    own: Sequence[tuple[Task, Episode]],
    ranks: Ranks,
) -> Row:
    """Update the initial weights and the inner learning rates."""
    settings = config.meta
    plain = state.step < settings.pretrain
    weights, buffers = list(state.network.parameters()), _statistics(state.network.buffers())
    parts = [*weights, state.log_rates, *buffers, weights[0].new_zeros(2)]  # in this order, a row for each task
    rows = weights[0].new_zeros(len(own), sum(part.numel() for part in parts))
    state.network.train()
    for row, (task, episode) in zip(rows, own, strict=True):
        try:
            estimate = _meta_gradient(config, state, layers, task, episode)
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


def _meta_gradient(config: MetaInitConfig, state: _State, layers: Layers, task: Task, episode: Episode) -> MetaGradient:
    # Without steps to take, FOMAML's gradient is that of the query loss itself.
    inner, algorithm = config.inner, config.meta.algorithm if episode.support else "fomaml"
    learnt = inner.learn_rates and algorithm in LEARN_RATES and bool(episode.support)
    adaptation = adaptation_of(layers, state.rates.requires_grad_(learnt), inner.optimizer)
    options = {"strength": inner.strength, "iterations": inner.iterations} if algorithm == "imaml" else {}
    loss = partial(pair_loss, task.loss)
    return META_GRADIENTS[algorithm](state.network, loss, episode.support, episode.query, adaptation, **options)


def _statistics(buffers: Iterable[Tensor]) -> list[Tensor]:
    """Take the buffers that are averaged over the tasks: those of floating-point numbers."""
    return [buffer for buffer in buffers if buffer.is_floating_point()]


def _validate(
    config: MetaInitConfig,
    state: _State,
    layers: Layers,
    genotype: Genotype,
    tasks: Sequence[Task],
    trials: Sequence[Trial],
    ranks: Ranks,
) -> Scores | None:
    """Score the adaptation to all tasks; keep the weights as the last ones and, if none did better, as the best."""
    if not ranks.leads:
        return None
    inner, run = config.inner, config.run
    adaptation = adaptation_of(layers, state.rates, inner.optimizer)
    curves = {
        trial.task.name: adaptation_curve(state.network, adaptation, trial, {0, 1, inner.steps}) for trial in trials
    }
    total = sum(task.weight for task in tasks)
    ends = {min(1, inner.steps), inner.steps}
    score = sum(task.weight * curves[task.name][count] for task in tasks for count in ends) / total / len(ends)
    check_finite({"validation loss": score})
    scores = {"mean": {"loss": score}} | {name: _by_count(curve) for name, curve in curves.items()}
    save_weights(run / LAST_WEIGHTS_FILE, state.network.state_dict(), {"genotype": genotype.name})
    if score < state.best_loss:
        state.best_loss, state.best_step = score, state.step - 1
        save_rates(run, layers, state.rates)
        genotype = _described(config, genotype, state.network, tasks, state.best_step, scores)
        save_network_folder(run, genotype, state.network)
    return scores


def _conclude(
    config: MetaInitConfig,
    genotype: Genotype,
    network: nn.Module,
    tasks: Sequence[Task],
    best_step: int,
    device: torch.device,
) -> MetaInitialisation:
    """Adapt the best weights to every task beside random weights, and draw; the genotype comes last."""
    run = config.run
    load_into(network, run)
    layers = adapting_layers(network, config.adapting_part)
    adaptation = adaptation_of(layers, load_rates(run, layers).to(device), config.inner.optimizer)
    torch.manual_seed(config.seed)
    fresh_network = build_network(genotype).to(device)
    fresh_adaptation = plain_adaptation(fresh_network)
    trials = _trials(config, tasks, SHOWN_STEPS[-1], device)
    curves = {trial.task.name: adaptation_curve(network, adaptation, trial, SHOWN_STEPS) for trial in trials}
    fresh = {trial.task.name: adaptation_curve(fresh_network, fresh_adaptation, trial, SHOWN_STEPS) for trial in trials}
    draw_adaptation({"meta-initialisation": curves, "random weights, Adam": fresh}, run / PICTURES_FOLDER)
    draw_training(read_history(run / HISTORY_FILE), run / PICTURES_FOLDER)
    scores = {name: _by_count(curve) for name, curve in curves.items()}
    trained = [task for task in tasks if task.weight]
    genotype = _described(config, genotype, network, trained, best_step, scores)
    save_genotype(genotype, run / GENOTYPE_FILE)
    return MetaInitialisation(genotype, best_step, curves, fresh)


def _by_count(curve: Curve) -> dict[str, float]:
    return {f"after {count}": value for count, value in curve.items()}


def _described(
    config: MetaInitConfig,
    genotype: Genotype,
    network: nn.Module,
    tasks: Sequence[Task],
    best_step: int,
    scores: Scores,
) -> Genotype:
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
