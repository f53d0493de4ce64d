"""One step of a search: the weights by the inner loss, the architecture and the task network by the outer one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..bilevel import ESTIMATORS, BilevelProblem, finite_difference, first_order, gauss_newton
from ..bilevel.gradients import loss_and_gradient
from ..bilevel.isolation import isolated
from ..bilevel.options import complete_options
from ..cost import Decisions
from ..data import PairBatch
from ..downstream.task_network import average_statistics
from ..objectives import FusionLoss
from ..operators.mixture import first_derivatives_only
from ..runtime.errors import check_finite
from ..runtime.loop import Row
from ..runtime.schedules import cosine
from ..runtime.seeds import derive_seed
from ..training.first_stage import loss_of_stages, run_stages
from ..training.train_config import TrainSection
from .relaxation import entropy, noise_of, relax_all, temperature_at
from .search_config import SearchConfig
from .search_setup import SearchParts, SearchState

FIRST_DERIVATIVES = (first_order, gauss_newton, finite_difference)
"""Estimators that differentiate nothing twice."""

SIDE_WEIGHT = TrainSection().side_weight  # of the side images of refine networks, as in a training


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
        state: The state of the search; changed in place.
        architecture_batch: Pairs that score the architecture; None in the warm-up of a search without a task network.
    """
    settings, scorer = config.search, state.scorer
    searching = architecture_batch is not None and (scorer is None or state.step >= settings.warmup)
    # A function of the step alone, so that dropout in an operator of one's own neither repeats nor breaks a resume.
    torch.manual_seed(derive_seed(config.seed, "forward", state.step))
    learning_rate = cosine(
        settings.weight_learning_rate, settings.weight_learning_rate / 10, state.step, settings.steps
    )
    with _learning_rate(state.weight_optimizer, learning_rate):
        row = _differentiate(config, state, parts, weight_batch, architecture_batch, searching)
        norm = torch.nn.utils.clip_grad_norm_(state.supernet.parameters(), settings.weight_clip).item()
        check_finite({"inner loss": row["inner_loss"], "weight gradient": norm})
        state.weight_optimizer.step()
    row |= {"weight_learning_rate": learning_rate, "weight_gradient_norm": norm}
    if scorer is not None:
        row["task_gradient_norm"] = torch.nn.utils.clip_grad_norm_(scorer.parameters, settings.weight_clip).item()
        scorer.step(cosine(1.0, 0.1, state.step, settings.steps))
        average_statistics(scorer.network, parts.ranks)
    temperature = row["temperature"]
    if searching:
        if parts.penalty is not None:
            cost, expected = parts.penalty.term(relax_all(state.decisions, temperature))
            # Once, and to the hypergradient: inside F or f it would be counted again by the estimator's correction.
            if cost.requires_grad:  # a front alone costs nothing
                cost.backward()
            row |= expected
        state.architecture_optimizer.step()
    row["entropy"] = entropy(relax_all(state.decisions.detach(), temperature)).item()
    return row


@contextmanager
def _learning_rate(optimizer: torch.optim.Optimizer, value: float) -> Iterator[None]:
    """Give an optimiser a learning rate within a block, for its step and for the estimators that model the step.

    Afterwards it has the one before, so that a step that fails leaves no trace.
    """
    before = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = value
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = rate


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
    noise = noise_of(state.decisions, config.seed, state.step) if settings.mixture == "gumbel" else None

    def fuse(supernet: nn.Module, batch: PairBatch, logits: Decisions) -> tuple[Tensor, ...]:
        probabilities = relax_all(logits, temperature, noise).tensors
        return run_stages(supernet, parts.first_stage, batch.first, batch.second, *probabilities)

    def loss_of(loss: FusionLoss, logits: Decisions) -> Callable[[nn.Module, PairBatch], Tensor]:
        def evaluate(supernet: nn.Module, batch: PairBatch) -> Tensor:
            images = fuse(supernet, batch, logits)
            return loss_of_stages(loss, images, batch.first, batch.second, SIDE_WEIGHT)

        return evaluate

    def task_loss(supernet: nn.Module, batch: PairBatch) -> Tensor:
        assert scorer is not None
        logits = state.logits.view_as(state.logits)
        logits.register_hook(direct.append)
        with torch.set_grad_enabled(searching):  # in the warm-up the images are taken as they are
            fused, *_ = fuse(supernet, batch, Decisions(logits, state.width_logits))
        return scorer.loss(fused, batch)

    weights = list(state.supernet.parameters())
    row: Row = {"temperature": temperature}
    f_w: Sequence[Tensor] | None = None
    direct: list[Tensor] = []  # gradient of the task's loss by the logits, the weights being constant
    outer = [*state.decisions.tensors, *([] if scorer is None else scorer.parameters)]
    outer_loss = loss_of(parts.outer, state.decisions) if scorer is None else task_loss
    inner_loss = loss_of(parts.inner, state.decisions)
    problem = BilevelProblem(state.supernet, outer, outer_loss, inner_loss, ranks.average)
    if architecture_batch is not None:
        estimator, options = first_order, {}
        if searching:
            estimator = ESTIMATORS[settings.estimator]
            options = complete_options(
                settings.estimator, settings.estimator_options, state.weight_optimizer, settings.weight_clip
            )
        with first_derivatives_only() if estimator in FIRST_DERIVATIVES else nullcontext():
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
        # Without a derivative by the logits, only the sampled network is computed.
        alone = loss_of(parts.inner, state.decisions.detach())
        with isolated(problem) as evaluate:
            f, f_w = loss_and_gradient(evaluate(alone, weight_batch), weights, ranks.average)
        row["inner_loss"] = f.item()
    for weight, gradient in zip(weights, f_w, strict=True):
        weight.grad = gradient
    return row
