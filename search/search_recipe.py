"""The search, from image pairs to a genotype: setup, the bilevel loop, conclusion."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bilevel import ESTIMATORS, BilevelProblem, NonFiniteError, first_order
from ..bilevel.gradients import loss_and_gradient
from ..bilevel.isolation import isolated
from ..bilevel.options import complete_options
from ..cost.cost_penalty import Charges, open_charges
from ..cost.feasibility import check_reachable
from ..cost.latency_table import load_table, save_table
from ..data import LabelledBatch, PairSource, Splits, fingerprint
from ..downstream import build_task_network
from ..downstream.task_network import average_statistics
from ..genotypes import Genotype
from ..objectives import FusionLoss
from ..objectives.loss_section import LossSection
from ..operators import FusionNetwork, build_supernet, synchronised
from ..runtime.checkpoint import capture_rng, restore_rng, restoring
from ..runtime.device import select_device
from ..runtime.distribution import ALONE, Ranks, open_ranks
from ..runtime.errors import StoppedError, UserError
from ..runtime.interruption import deferred_interrupt
from ..runtime.led_run import LedRun, open_led_run
from ..runtime.memory import keep_freed_memory
from ..runtime.run_folder import CHECKPOINT_FILE
from ..runtime.schedules import cosine
from ..runtime.seeds import derive_seed, seed_everything
from .guards import Guards
from .relaxation import entropy, gumbel_noise, relax, temperature_at
from .scorer import Scorer
from .search_batches import Batch, LabelledStreams, Streams, read_labelled_pairs, read_pairs
from .search_conclusion import conclude, validation_losses
from .search_config import SearchConfig

LATENCY_FILE = "latency.yaml"
HARMLESS = ("run", "data.workers", "data.cache_megabytes", "search.checkpoint_every")  # may differ on resuming
PROBABILITY_EVERY = 10  # steps between two records of all operator probabilities

OnValidation = Callable[[int, dict[str, float]], None]


def search(
    config: SearchConfig, *, resume: bool = False, overwrite: bool = False, on_validation: OnValidation | None = None
) -> Genotype:
    """Search a fusion network and write the run folder.

    With a downstream task the architecture is scored by the loss of a task network on the fused images, while the
    weights are trained by the fusion loss all the same. The task network learns along: in the warm-up by a pass on
    images that the supernet fuses for it, which costs one more of the supernet's forward passes; afterwards as a part
    of the outer variables, by the pass that scores the architecture.

    Where `torchrun` started several processes, each has its part of every batch, and the result is to rounding that of
    one process; but a task network's losses and statistics are those of parts.

    Args:
        config: what to search, on what and how; `config.run` is the folder.
        resume: go on from the run's checkpoint, to the bit.
        overwrite: replace the run that is in the folder.
        on_validation: told the step and the losses of each validation, as in the history; what it raises ends the run.

    Returns:
        The genotype, as written to `genotype.yaml`. `Spending.of` it says whether it meets the budget, if there is one.

    Raises:
        UserError: the config, the data, the device or the run folder cannot be used, no network of the space meets the
            budget, or a loss became non-finite.
    """
    keep_freed_memory()
    with open_ranks() as ranks:
        device = select_device(config.device, ranks.local)
        for section in (config.search.outer_loss, config.search.inner_loss):
            section.loss(config.data.crop)  # before anything is read, measured or written
        ranks.check_even("data.batch_size", config.data.batch_size)
        open_streams, source, splits, scorer = _open_data(config, device)
        charges = ranks.from_leader(lambda: _open_charges(config, device, resume))
        with open_led_run(
            config.run,
            config,
            ranks,
            resume=resume,
            overwrite=overwrite,
            harmless=HARMLESS,
            pairs=len(source),
            fingerprint=lambda: fingerprint((source.fingerprint(), asdict(splits))),
        ) as run:
            if ranks.leads and charges is not None and charges.table:
                save_table(run.path / LATENCY_FILE, charges.table, device)
            # After the measurements, which draw random inputs only where the cache lacks them.
            seed_everything(config.seed)
            state = _setup(config, device, scorer)
            if run.resumes:
                _restore(state, run.load_checkpoint(), run.path)
            run.start("searching", config.search.steps, state.step)
            with synchronised(state.supernet, ranks):
                _fit(config, state, open_streams(ranks), charges, run, on_validation)
            probabilities = relax(state.logits.detach(), config.search.temperature[1])
            return ranks.from_leader(
                lambda: conclude(
                    config,
                    state.supernet,
                    probabilities,
                    open_streams(ALONE),
                    splits,
                    state.guards.given,
                    scorer,
                    charges,
                )
            )


def _open_data(
    config: SearchConfig, device: torch.device
) -> tuple[Callable[[Ranks], Streams], PairSource, Splits, Scorer | None]:
    """Read the pairs and, for a downstream task, their labels, and build the network that learns from them."""
    data, task, seed = config.data, config.downstream, config.seed
    if task is None:
        source, splits = read_pairs(data, seed)
        return partial(Streams, data, source, splits, seed, device), source, splits, None
    labelled, splits = read_labelled_pairs(data, task.labels, seed)
    seed_everything(seed)
    network = build_task_network(task.kind, task.network, labelled.classes, task.width, task.init).to(device)
    scorer = Scorer(network, learning_rate=task.learning_rate, weight_decay=task.weight_decay)
    return partial(LabelledStreams, data, labelled, splits, seed, device, task.labels), labelled, splits, scorer


def _open_charges(config: SearchConfig, device: torch.device, resume: bool) -> Charges | None:
    """Measure or count what networks cost, where that counts; a run keeps the table that it began with."""
    space, cost, own = config.space, config.cost, config.run / LATENCY_FILE
    charges = open_charges(
        space.bare,
        space.operators,
        weight=cost.weight,
        budget=cost.parsed_budget,
        budget_weight=cost.budget_weight,
        height=cost.height,
        width=cost.width,
        known=load_table(own, device) if resume and own.is_file() else None,
        device=device,
    )
    begun = resume and (config.run / CHECKPOINT_FILE).is_file()
    if charges is not None and charges.budget is not None and not begun:
        check_reachable(config, charges.budget, charges.models[charges.budget.kind], device)
    return charges


@dataclass
class _State:
    """Everything that a search changes: what a checkpoint holds, beside the random generators."""

    supernet: FusionNetwork
    logits: Tensor  # (cells, steps, candidates)
    weight_optimizer: torch.optim.Optimizer
    architecture_optimizer: torch.optim.Optimizer
    guards: Guards
    scorer: Scorer | None  # of a search by a downstream task
    step: int = 0


def _setup(config: SearchConfig, device: torch.device, scorer: Scorer | None = None) -> _State:
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
        scorer,
    )


def _fit(
    config: SearchConfig,
    state: _State,
    streams: Streams,
    charges: Charges | None,
    run: LedRun,
    on_validation: OnValidation | None,
) -> None:
    """Run the steps that are left, with a checkpoint now and then and at the end."""
    settings, scorer, ranks = config.search, state.scorer, run.ranks
    first = settings.warmup if scorer is None else 0  # step to use architecture pairs
    weight_batches = streams.weight(state.step, settings.steps)
    architecture_batches = streams.architecture(max(0, state.step - first), settings.steps - first)
    try:
        with deferred_interrupt() as interrupted:
            while state.step < settings.steps:
                architecture_batch = next(architecture_batches) if state.step >= first else None
                with nullcontext() if scorer is None else scorer.forgetting_failures():
                    row = _step(config, state, charges, next(weight_batches), architecture_batch, ranks)
                probabilities = relax(state.logits.detach(), row["temperature"])
                for warning in state.guards.observe(state.step, row["inner_loss"], probabilities):
                    run.print(f"warning: {warning}")
                last = state.step == settings.steps - 1
                if state.step % PROBABILITY_EVERY == 0 or last:
                    row["probability"] = _by_name(probabilities, config.space.operators)
                if (state.step + 1) % settings.validate_every == 0 or last:
                    supernet = partial(state.supernet, probabilities=probabilities)
                    losses = validation_losses(settings, supernet, streams, scorer)
                    (means,) = ranks.average([torch.tensor(list(losses.values()), dtype=torch.float64)])
                    row["validation"] = dict(zip(losses, means.tolist(), strict=True))
                run.log(state.step, row)
                state.step += 1
                run.advance(_status(row["inner_loss"], probabilities, config.space.operators))
                stop = ranks.agree(interrupted())
                if state.step % settings.checkpoint_every == 0 or last or stop:
                    run.save_checkpoint(_captured(state))
                if stop:
                    raise StoppedError(f"stopped before step {state.step}; go on with --resume")
                if on_validation is not None and ranks.leads and "validation" in row:
                    on_validation(state.step - 1, row["validation"])
    except NonFiniteError as error:
        run.save_checkpoint(_captured(state))
        task_rate = "" if scorer is None else "downstream.learning_rate, "
        raise UserError(
            f"step {state.step}: {error}; the state before it is in {run.path / CHECKPOINT_FILE}; lower {task_rate}"
            "search.weight_learning_rate or search.weight_clip and start anew with --overwrite"
        ) from None


def _step(
    config: SearchConfig,
    state: _State,
    charges: Charges | None,
    weight_batch: Batch,
    architecture_batch: Batch | None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Update the weights and, given a batch for it, the architecture and what scores it; return what to log.

    In the warm-up a task network alone learns from that batch.
    """
    settings, scorer = config.search, state.scorer
    searching = architecture_batch is not None and (scorer is None or state.step >= settings.warmup)
    # A function of the step alone, so that dropout in an operator of one's own neither repeats nor breaks a resume.
    torch.manual_seed(derive_seed(config.seed, "forward", state.step))
    row = _differentiate(config, state, weight_batch, architecture_batch, searching, ranks)
    norm = torch.nn.utils.clip_grad_norm_(state.supernet.parameters(), settings.weight_clip).item()
    for name, value in (("inner loss", row["inner_loss"]), ("weight gradient", norm)):
        if not math.isfinite(value):
            raise NonFiniteError(f"the {name} is not finite: {value}")
    row["weight_gradient_norm"] = norm
    for group in state.weight_optimizer.param_groups:
        group["lr"] = row["weight_learning_rate"]
    state.weight_optimizer.step()
    if scorer is not None:
        row["task_gradient_norm"] = torch.nn.utils.clip_grad_norm_(scorer.parameters, settings.weight_clip).item()
        scorer.step(cosine(1.0, 0.1, state.step, settings.steps))
        average_statistics(scorer.network, ranks)
    temperature = row["temperature"]
    if searching:
        if charges is not None:
            cost, expected = charges.term(relax(state.logits, temperature))
            # Once, and to the hypergradient: inside F or f it would be counted again by the estimator's correction.
            cost.backward()
            row |= expected
        state.architecture_optimizer.step()
    row["entropy"] = entropy(relax(state.logits.detach(), temperature)).item()
    return row


def _differentiate(
    config: SearchConfig,
    state: _State,
    weight_batch: Batch,
    architecture_batch: Batch | None,
    searching: bool,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Set the gradients of a step; return what to log of them."""
    settings, scorer = config.search, state.scorer
    temperature = temperature_at(state.step, settings.steps, *settings.temperature)
    noise = gumbel_noise(state.logits, config.seed, state.step) if settings.mixture == "gumbel" else None
    learning_rate = cosine(
        settings.weight_learning_rate, settings.weight_learning_rate / 10, state.step, settings.steps
    )

    def fuse(supernet: torch.nn.Module, batch: Batch, logits: Tensor) -> Tensor:
        fused: Tensor = supernet(batch.first, batch.second, relax(logits, temperature, noise))
        return fused

    def loss_of(section: LossSection) -> Callable[[torch.nn.Module, Batch], Tensor]:
        loss = FusionLoss(**section.model_dump())

        def evaluate(supernet: torch.nn.Module, batch: Batch) -> Tensor:
            return loss(fuse(supernet, batch, state.logits), batch.first, batch.second)

        return evaluate

    def task_loss(supernet: torch.nn.Module, batch: LabelledBatch) -> Tensor:
        assert scorer is not None
        logits = state.logits.view_as(state.logits)
        logits.register_hook(direct.append)
        with torch.set_grad_enabled(searching):  # in the warm-up the images are taken as they are
            fused = fuse(supernet, batch, logits)
        return scorer.loss(fused, batch)

    weights = list(state.supernet.parameters())
    row: dict[str, Any] = {"temperature": temperature, "weight_learning_rate": learning_rate}
    f_w: Sequence[Tensor] | None = None
    direct: list[Tensor] = []  # gradient of the task's loss by the logits, the weights being constant
    outer = [state.logits] if scorer is None else [state.logits, *scorer.parameters]
    outer_loss = loss_of(settings.outer_loss) if scorer is None else task_loss
    problem = BilevelProblem(state.supernet, outer, outer_loss, loss_of(settings.inner_loss), ranks.average)
    if architecture_batch is not None:
        estimator, options = first_order, {}
        if searching:
            estimator = ESTIMATORS[settings.estimator]
            options = complete_options(settings.estimator, settings.estimator_options, learning_rate, weights)
        estimate = estimator(problem, architecture_batch, weight_batch, **options)
        row |= estimate.diagnostics
        f_w = estimate.inner
        for variable, gradient in zip(outer, estimate.outer, strict=True):
            variable.grad = gradient
        if scorer is not None:
            # Of the logits alone: the gradients of all outer variables are nearly all the task network's.
            row.pop("ratio", None)
            if direct and (norm := ranks.average(direct[:1])[0].norm().item()) > 0:
                row["ratio"] = estimate.outer[0].norm().item() / norm
    if f_w is None:
        with isolated(problem) as evaluate:
            f, f_w = loss_and_gradient(evaluate(problem.inner_loss, weight_batch), weights, ranks.average)
        row["inner_loss"] = f.item()
    for weight, gradient in zip(weights, f_w, strict=True):
        weight.grad = gradient
    return row


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
    scored = {} if state.scorer is None else {"scorer": state.scorer.state_dict()}
    return {
        "step": state.step,
        "supernet": state.supernet.state_dict(),
        "logits": state.logits.detach(),
        "weight_optimizer": state.weight_optimizer.state_dict(),
        "architecture_optimizer": state.architecture_optimizer.state_dict(),
        "guards": state.guards.state_dict(),
        **scored,
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
        if state.scorer is not None:
            state.scorer.load_state_dict(saved["scorer"])
        state.step = saved["step"]
        restore_rng(saved["rng"])
