"""The search, from image pairs to a genotype: setup, bilevel step, validation, conclusion."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..bilevel import ESTIMATORS, BilevelProblem, first_order
from ..bilevel.gradients import loss_and_gradient
from ..bilevel.isolation import isolated
from ..bilevel.options import complete_options
from ..cost import CostPenalty, save_latency_table
from ..data import PairBatch
from ..downstream.task_network import average_statistics
from ..genotypes import Genotype
from ..objectives import FusionLoss, search_losses
from ..objectives.loss_section import fusion_loss
from ..operators import synchronised
from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import check_finite
from ..runtime.loop import Loop, Row, Scores, open_loop
from ..runtime.run_files import LATENCY_FILE
from ..runtime.schedules import cosine
from ..runtime.seeds import derive_seed, seed_everything
from .relaxation import entropy, gumbel_noise, relax, temperature_at
from .search_batches import SearchBatches
from .search_conclusion import conclude, probabilities_by_name, status, validation_losses
from .search_config import SearchConfig
from .search_setup import SearchState, open_batches, open_penalty, set_up
from .several_seeds import SearchResult, search_seeds

PROBABILITY_EVERY = 10  # steps between two records of all operator probabilities


class SearchParts(NamedTuple):
    """What a search works with and does not change."""

    batches: SearchBatches
    outer: FusionLoss
    inner: FusionLoss
    penalty: CostPenalty | None
    ranks: Ranks


def search(
    config: SearchConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_validation: Callable[[int, Scores], None] | None = None,
) -> SearchResult:
    """Search a fusion network, once or with several seeds, and write the run folder.

    Args:
        config: The data, the space, the optimisation and the cost; `config.run` is the run folder. With `seeds` above
            1, each search has a folder of its own below it; see `search_seeds`.
        resume: Whether to go on from the run's checkpoint. The result is the same to the bit.
        overwrite: Whether to replace the run in the folder.
        on_validation: Receives the step and the losses of each validation of a single search; an exception that it
            raises ends the run.

    Returns:
        The genotype, as written to `genotype.yaml`, and those of the seeds.

    Raises:
        UserError: If the config, the data, the device or the run folder cannot be used, no network of the space meets
            the budget, or a loss is not finite.
    """
    if config.seeds > 1:
        return search_seeds(config, _search_once, resume=resume, overwrite=overwrite)
    genotype = _search_once(config, resume=resume, overwrite=overwrite, on_validation=on_validation)
    return SearchResult(genotype, {config.seed: genotype}, config.seed)


def _search_once(
    config: SearchConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_validation: Callable[[int, Scores], None] | None = None,
) -> Genotype:
    """Search with one seed.

    With a downstream task, the loss of a task network on the fused images scores the architecture; the fusion loss
    trains the weights all the same. The task network learns along: in the warm-up by one more forward pass of the
    supernet, afterwards as a part of the outer variables.
    """
    settings = config.search
    with open_loop(config, resume=resume, overwrite=overwrite) as loop:
        ranks, device = loop.ranks, loop.device
        outer, inner = search_losses(config.task)
        outer = fusion_loss(settings.outer_loss, outer, config.data.crop)
        inner = fusion_loss(settings.inner_loss, inner, config.data.crop)
        ranks.check_even("data.batch_size", config.data.batch_size)
        batches, scorer = open_batches(config, device, ranks)
        penalty = ranks.from_leader(lambda: open_penalty(config, device, resume))
        parts = SearchParts(batches, outer, inner, penalty, ranks)
        loop.open_folder(
            pairs=len(batches.pairs.source),
            fingerprint=batches.pairs.fingerprint,
            harmless=["search.checkpoint_every"],
        )
        if ranks.leads and penalty is not None and penalty.table:
            save_latency_table(config.run / LATENCY_FILE, penalty.table, device)
        # After the measurements, which draw random inputs only where the cache lacks them.
        seed_everything(config.seed)
        state = set_up(config, device, scorer)
        loop.start(state)
        first = settings.warmup if scorer is None else 0  # step to use architecture pairs
        weight_batches = batches.weight(state.step, settings.steps)
        architecture_batches = batches.architecture(max(0, state.step - first), settings.steps - first)

        def step() -> Row:
            architecture_batch = next(architecture_batches) if state.step >= first else None
            row = search_step(config, state, parts, next(weight_batches), architecture_batch)
            return _observed(config, state, row, loop)

        with synchronised(state.supernet, ranks):
            loop.run(
                state,
                step=step,
                validate=partial(_validate, config, state, parts),
                remedy="search.weight_learning_rate or search.weight_clip"
                + ("" if scorer is None else ", or downstream.learning_rate"),
                status=lambda row: status(
                    row, relax(state.logits.detach(), row["temperature"]), config.space.operators
                ),
                on_validation=on_validation,
                **config.rhythm,
            )
        probabilities, warnings = relax(state.logits.detach(), settings.temperature[1]), state.guards.given
        alone = parts._replace(batches=replace(batches, ranks=ALONE))
        return ranks.from_leader(
            lambda: conclude(
                config, state.supernet, probabilities, outer, inner, alone.batches, warnings, scorer, penalty
            )
        )


def _observed(config: SearchConfig, state: SearchState, row: Row, loop: Loop) -> Row:
    """Watch over the losses and the operator probabilities of a step."""
    probabilities = relax(state.logits.detach(), row["temperature"])
    for warning in state.guards.observe(state.step, row["inner_loss"], probabilities):
        loop.print(f"warning: {warning}")
    if state.step % PROBABILITY_EVERY == 0 or state.step == config.search.steps - 1:
        row["probability"] = probabilities_by_name(probabilities, config.space.operators)
    return row


def search_step(
    config: SearchConfig,
    state: SearchState,
    parts: SearchParts,
    weight_batch: PairBatch,
    architecture_batch: PairBatch | None,
) -> Row:
    """Update the weights and, if there is an architecture batch, the architecture and the task network.

    In the warm-up only the task network learns from the architecture batch.

    Args:
        config: The config of the search.
        state: The state of the search; changed in place.
        parts: Losses, cost penalty and processes.
        weight_batch: Pairs that train the weights.
        architecture_batch: Pairs that score the architecture; None in the warm-up of a search without a task network.

    Returns:
        The row of the history.
    """
    settings, scorer = config.search, state.scorer
    searching = architecture_batch is not None and (scorer is None or state.step >= settings.warmup)
    # A function of the step alone, so that dropout in an operator of one's own neither repeats nor breaks a resume.
    torch.manual_seed(derive_seed(config.seed, "forward", state.step))
    row = _differentiate(config, state, parts, weight_batch, architecture_batch, searching)
    norm = torch.nn.utils.clip_grad_norm_(state.supernet.parameters(), settings.weight_clip).item()
    check_finite({"inner loss": row["inner_loss"], "weight gradient": norm})
    row["weight_gradient_norm"] = norm
    for group in state.weight_optimizer.param_groups:
        group["lr"] = row["weight_learning_rate"]
    state.weight_optimizer.step()
    if scorer is not None:
        row["task_gradient_norm"] = torch.nn.utils.clip_grad_norm_(scorer.parameters, settings.weight_clip).item()
        scorer.step(cosine(1.0, 0.1, state.step, settings.steps))
        average_statistics(scorer.network, parts.ranks)
    temperature = row["temperature"]
    if searching:
        if parts.penalty is not None:
            cost, expected = parts.penalty.term(relax(state.logits, temperature))
            # Once, and to the hypergradient: inside F or f it would be counted again by the estimator's correction.
            cost.backward()
            row |= expected
        state.architecture_optimizer.step()
    row["entropy"] = entropy(relax(state.logits.detach(), temperature)).item()
    return row


def _differentiate(
    config: SearchConfig,
    state: SearchState,
    parts: SearchParts,
    weight_batch: PairBatch,
    architecture_batch: PairBatch | None,
    searching: bool,
) -> Row:
    """Set the gradients of a step."""
    settings, scorer, ranks = config.search, state.scorer, parts.ranks
    temperature = temperature_at(state.step, settings.steps, *settings.temperature)
    noise = gumbel_noise(state.logits, config.seed, state.step) if settings.mixture == "gumbel" else None
    learning_rate = cosine(
        settings.weight_learning_rate, settings.weight_learning_rate / 10, state.step, settings.steps
    )

    def fuse(supernet: nn.Module, batch: PairBatch, logits: Tensor) -> Tensor:
        fused: Tensor = supernet(batch.first, batch.second, relax(logits, temperature, noise))
        return fused

    def loss_of(loss: FusionLoss) -> Callable[[nn.Module, PairBatch], Tensor]:
        def evaluate(supernet: nn.Module, batch: PairBatch) -> Tensor:
            return loss(fuse(supernet, batch, state.logits), batch.first, batch.second)

        return evaluate

    def task_loss(supernet: nn.Module, batch: PairBatch) -> Tensor:
        assert scorer is not None
        logits = state.logits.view_as(state.logits)
        logits.register_hook(direct.append)
        with torch.set_grad_enabled(searching):  # in the warm-up the images are taken as they are
            fused = fuse(supernet, batch, logits)
        return scorer.loss(fused, batch)

    weights = list(state.supernet.parameters())
    row: Row = {"temperature": temperature, "weight_learning_rate": learning_rate}
    f_w: Sequence[Tensor] | None = None
    direct: list[Tensor] = []  # gradient of the task's loss by the logits, the weights being constant
    outer = [state.logits] if scorer is None else [state.logits, *scorer.parameters]
    outer_loss = loss_of(parts.outer) if scorer is None else task_loss
    problem = BilevelProblem(state.supernet, outer, outer_loss, loss_of(parts.inner), ranks.average)
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


def _validate(config: SearchConfig, state: SearchState, parts: SearchParts) -> Scores:
    """Average both losses of the supernet over the validation batches."""
    temperature = temperature_at(state.step - 1, config.search.steps, *config.search.temperature)
    supernet = partial(state.supernet, probabilities=relax(state.logits.detach(), temperature))
    losses = validation_losses(parts.outer, parts.inner, supernet, parts.batches, state.scorer)
    (means,) = parts.ranks.average([torch.tensor(list(losses.values()), dtype=torch.float64)])
    return {"mean": dict(zip(losses, means.tolist(), strict=True))}


def _status(config: SearchConfig, state: SearchState, row: Row) -> str:
    return status(row, relax(state.logits.detach(), row["temperature"]), config.space.operators)
