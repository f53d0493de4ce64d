"""The search, from image pairs to a genotype: setup, the bilevel loop, conclusion."""

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bilevel import ESTIMATORS, BilevelProblem, NonFiniteError
from ..bilevel.isolation import isolated
from ..data import PairBatch
from ..genotypes import Genotype
from ..objectives import FusionLoss
from ..objectives.section import LossSection
from ..operators import FusionNetwork, build_supernet
from ..runtime.checkpoint import capture_rng, load_checkpoint, restore_rng, restoring, save_checkpoint
from ..runtime.config import config_to_yaml
from ..runtime.device import select_device
from ..runtime.errors import UserError
from ..runtime.history import History
from ..runtime.interruption import deferred_interrupt
from ..runtime.memory import keep_freed_memory
from ..runtime.progress import Progress
from ..runtime.run_folder import RunFolder, open_run
from ..runtime.schedules import cosine
from ..runtime.seeds import derive_seed, seed_everything
from .conclusion import conclude, validation_losses
from .config import SearchConfig
from .guards import Guards
from .latency import LatencyModel, latency_term, load_table, save_table, table_path
from .relaxation import entropy, gumbel_noise, relax, temperature_at
from .streams import Streams, read_pairs

HARMLESS = ("run", "data.workers", "data.cache_megabytes", "search.checkpoint_every")  # may differ on resuming
PROBABILITY_EVERY = 10  # steps between two records of all operator probabilities


def search(config: SearchConfig, *, resume: bool = False, overwrite: bool = False) -> Genotype:
    """Search a fusion network and write the run folder.

    Args:
        config: what to search, on what and how; `config.run` is the folder.
        resume: go on from the run's checkpoint, to the bit.
        overwrite: replace the run that is in the folder.

    Returns:
        The genotype, as written to `genotype.yaml`.

    Raises:
        UserError: the config, the data, the device or the run folder cannot be used, or a loss became non-finite.
    """
    keep_freed_memory()
    device = select_device(config.device)
    for section in (config.search.outer_loss, config.search.inner_loss):
        section.loss(config.data.crop)  # before anything is read, measured or written
    source, splits = read_pairs(config.data, config.seed)
    streams = Streams(config.data, source, splits, config.seed, device)
    yaml = config_to_yaml(config)
    with ExitStack() as stack:
        run = stack.enter_context(
            open_run(config.run, config_yaml=yaml, resume=resume, overwrite=overwrite, harmless=HARMLESS)
        )
        latency = _latency_model(config, run.path, device)
        seed_everything(config.seed)  # after the measurements, which draw random inputs only where the cache lacks them
        state = _setup(config, device)
        if run.resumes:
            _restore(state, load_checkpoint(run.checkpoint), run.path)
        history = stack.enter_context(History(run.path, state.step - 1 if run.resumes else None))
        total = config.search.steps
        progress = stack.enter_context(Progress(total, f"searching {run.path.name}", start=state.step))
        for note in filter(None, (run.note, history.note)):
            progress.print(note)
        _fit(config, state, streams, latency, run, history, progress)
        probabilities = relax(state.logits.detach(), config.search.temperature[1])
        return conclude(config, state.supernet, probabilities, streams, splits, state.guards.given)


def _latency_model(config: SearchConfig, run: Path, device: torch.device) -> LatencyModel | None:
    """Measure the operators where their time counts; a run keeps the table that it began with."""
    if config.latency.weight == 0:
        return None
    own, shared = run / "latency.yaml", table_path(device)
    table = load_table(own if own.is_file() else shared, device)
    known = len(table)
    model = LatencyModel(
        table,
        cells=config.space.cells,
        operators=config.space.operators,
        channels=config.space.channels,
        norm=config.space.norm,
        stem=config.space.stem,
        head=config.space.head,
        height=config.latency.height,
        width=config.latency.width,
        device=device,
    )
    if len(table) > known:
        save_table(shared, table, device)
    save_table(own, table, device)
    return model


@dataclass
class _State:
    """Everything that a search changes: what a checkpoint holds, beside the random generators."""

    supernet: FusionNetwork
    logits: Tensor  # (cells, steps, candidates)
    weight_optimizer: torch.optim.Optimizer
    architecture_optimizer: torch.optim.Optimizer
    guards: Guards
    step: int = 0


def _setup(config: SearchConfig, device: torch.device) -> _State:
    space, settings = config.space, config.search
    supernet = build_supernet(
        channels=space.channels,
        cells=space.cells,
        steps=space.steps,
        candidates=space.operators,
        norm=space.norm,
        stem=space.stem,
        head=space.head,
    ).to(device)
    shape = len(space.cells), space.steps, len(space.operators)
    logits = torch.zeros(shape, device=device, requires_grad=True)
    return _State(
        supernet,
        logits,
        torch.optim.Adam(supernet.parameters(), lr=settings.weight_learning_rate),
        torch.optim.Adam([logits], lr=settings.architecture_learning_rate, betas=(0.5, 0.999)),
        Guards(space.operators, settings.steps, settings.warmup),
    )


def _fit(
    config: SearchConfig,
    state: _State,
    streams: Streams,
    latency: LatencyModel | None,
    run: RunFolder,
    history: History,
    progress: Progress,
) -> None:
    """Run the steps that are left, with a checkpoint now and then and at the end."""
    settings = config.search
    weight_batches = streams.weight(state.step, settings.steps)
    architecture_batches = streams.architecture(max(0, state.step - settings.warmup), settings.steps - settings.warmup)
    try:
        with deferred_interrupt() as interrupted:
            while state.step < settings.steps:
                architecture_batch = next(architecture_batches) if state.step >= settings.warmup else None
                row = _step(config, state, latency, next(weight_batches), architecture_batch)
                probabilities = relax(state.logits.detach(), row["temperature"])
                for warning in state.guards.observe(state.step, row["inner_loss"], probabilities):
                    progress.print(f"warning: {warning}")
                last = state.step == settings.steps - 1
                if state.step % PROBABILITY_EVERY == 0 or last:
                    row["probability"] = _by_name(probabilities, config.space.operators)
                if (state.step + 1) % settings.validate_every == 0 or last:
                    supernet = partial(state.supernet, probabilities=probabilities)
                    row["validation"] = validation_losses(settings, supernet, streams)
                history.log(state.step, row)
                state.step += 1
                progress.advance(_status(row["inner_loss"], probabilities, config.space.operators))
                stop = interrupted()
                if state.step % settings.checkpoint_every == 0 or last or stop:
                    save_checkpoint(run.checkpoint, _captured(state))
                if stop:
                    raise UserError(f"stopped before step {state.step}; go on with --resume")
    except NonFiniteError as error:
        save_checkpoint(run.checkpoint, _captured(state))
        raise UserError(
            f"step {state.step}: {error}; the state before it is in {run.checkpoint}; lower"
            " search.weight_learning_rate or search.weight_clip and start anew with --overwrite"
        ) from None


def _step(
    config: SearchConfig,
    state: _State,
    latency: LatencyModel | None,
    weight_batch: PairBatch,
    architecture_batch: PairBatch | None,
) -> dict[str, Any]:
    """Update the weights and, given a batch for it, the architecture; return what to log."""
    settings = config.search
    temperature = temperature_at(state.step, settings.steps, *settings.temperature)
    noise = gumbel_noise(state.logits, config.seed, state.step) if settings.mixture == "gumbel" else None
    learning_rate = cosine(
        settings.weight_learning_rate, settings.weight_learning_rate / 10, state.step, settings.steps
    )
    # A function of the step alone, so that dropout in an operator of one's own neither repeats nor breaks a resume.
    torch.manual_seed(derive_seed(config.seed, "forward", state.step))

    def loss_of(section: LossSection) -> Callable[[torch.nn.Module, PairBatch], Tensor]:
        loss = FusionLoss(**section.model_dump())

        def evaluate(supernet: torch.nn.Module, batch: PairBatch) -> Tensor:
            fused = supernet(batch.first, batch.second, relax(state.logits, temperature, noise))
            return loss(fused, batch.first, batch.second)

        return evaluate

    weights = list(state.supernet.parameters())
    row: dict[str, Any] = {"temperature": temperature, "weight_learning_rate": learning_rate}
    f_w: Sequence[Tensor] | None = None
    problem = BilevelProblem(state.supernet, [state.logits], loss_of(settings.outer_loss), loss_of(settings.inner_loss))
    if architecture_batch is not None:
        estimator, options = _estimator(config, learning_rate, weights)
        estimate = estimator(problem, architecture_batch, weight_batch, **options)
        row |= estimate.diagnostics
        f_w = estimate.inner
        (state.logits.grad,) = estimate.outer
    if f_w is None:
        with isolated(problem) as evaluate:
            inner_loss = evaluate(problem.inner_loss, weight_batch)
            f_w = torch.autograd.grad(inner_loss, weights, materialize_grads=True)
        row["inner_loss"] = inner_loss.item()
    for weight, gradient in zip(weights, f_w, strict=True):
        weight.grad = gradient
    norm = torch.nn.utils.clip_grad_norm_(weights, settings.weight_clip).item()
    for name, value in (("inner loss", row["inner_loss"]), ("weight gradient", norm)):
        if not math.isfinite(value):
            raise NonFiniteError(f"the {name} is not finite: {value}")
    row["weight_gradient_norm"] = norm
    for group in state.weight_optimizer.param_groups:
        group["lr"] = learning_rate
    state.weight_optimizer.step()
    if architecture_batch is not None:
        if latency is not None:
            milliseconds = latency.expected(relax(state.logits, temperature))
            cost = latency_term(milliseconds, config.latency.weight, config.latency.budget)
            # Once, and to the hypergradient: inside F or f it would be counted again by the estimator's correction.
            state.logits.grad = estimate.outer[0] + torch.autograd.grad(cost, state.logits)[0]
            row["latency_ms"] = milliseconds.item()
        state.architecture_optimizer.step()
    row["entropy"] = entropy(relax(state.logits.detach(), temperature)).item()
    return row


def _estimator(
    config: SearchConfig, learning_rate: float, weights: Sequence[Tensor]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Look up the estimator; what models the inner steps takes their learning rate unless the user set one."""
    estimator = ESTIMATORS[config.search.estimator]
    options: dict[str, Any] = dict(config.search.estimator_options)
    parameters = inspect.signature(estimator).parameters
    if "learning_rate" in parameters:
        options.setdefault("learning_rate", learning_rate)
    if "optimizer" in parameters:
        options["optimizer"] = torch.optim.SGD(weights, lr=learning_rate)
    return estimator, options


def _by_name(probabilities: Tensor, operators: Sequence[str]) -> dict[str, dict[str, float]]:
    return {
        f"cell {cell + 1} step {step + 1}": dict(zip(operators, row, strict=True))
        for cell, rows in enumerate(probabilities.tolist())
        for step, row in enumerate(rows)
    }


def _status(loss: float, probabilities: Tensor, operators: Sequence[str]) -> str:
    values, indices = probabilities.flatten(0, 1).max(-1)
    leaders = (f"{operators[i]} {p:.2f}" for p, i in zip(values.tolist(), indices.tolist(), strict=True))
    return f"loss {loss:.4f}, leading: {' | '.join(leaders)}"


def _captured(state: _State) -> dict[str, Any]:
    return {
        "step": state.step,
        "supernet": state.supernet.state_dict(),
        "logits": state.logits.detach(),
        "weight_optimizer": state.weight_optimizer.state_dict(),
        "architecture_optimizer": state.architecture_optimizer.state_dict(),
        "guards": state.guards.state_dict(),
        "rng": capture_rng(),
    }


def _restore(state: _State, saved: dict[str, Any], run: Path) -> None:
    with restoring(run):
        state.supernet.load_state_dict(saved["supernet"])
        with torch.no_grad():
            state.logits.copy_(saved["logits"])
        state.weight_optimizer.load_state_dict(saved["weight_optimizer"])
        state.architecture_optimizer.load_state_dict(saved["architecture_optimizer"])
        state.guards.load_state_dict(saved["guards"])
        state.step = saved["step"]
        restore_rng(saved["rng"])
