"""The search, from image pairs to a genotype: setup, bilevel step, validation, conclusion."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from ..cost import save_latency_table
from ..genotypes import Genotype, load_genotype
from ..operators import beyond_crops, synchronised
from ..runtime.distribution import ALONE
from ..runtime.loop import Loop, Row, Scores, open_loop
from ..runtime.run_files import LATENCY_FILE
from ..runtime.seeds import seed_everything
from ..training.first_stage import FirstStage
from .relaxation import named_probabilities, relax_all, temperature_at
from .search_conclusion import (
    conclude,
    front_folder,
    fused_by,
    status,
    validation_losses,
)
from .search_config import VERIFY_KEYS, SearchConfig
from .search_report import write_report
from .search_setup import SearchParts, SearchState, open_parts, set_up
from .search_step import search_step
from .several_seeds import SearchResult, search_seeds
from .verification import verify

PROBABILITY_EVERY = 10  # steps between two records of all operator probabilities


def search(
    config: SearchConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_validation: Callable[[int, Scores], None] | None = None,
) -> SearchResult:
    """Search a fusion network, once or with several seeds, and write the run folder.

    Unless `verify.candidates` is 0, genotype and weights are those that `verify` chooses in the end. The page
    `report.html` shows what was found.

    Args:
        config: The data, the space, the optimisation and the cost; `config.run` is the run folder. With `seeds` above
            1, each search has a folder of its own below it; see `search_seeds`.
        resume: Whether to go on from the run's checkpoint. The result is the same to the bit.
        overwrite: Whether to replace the run in the folder.
        on_validation: Receives the step and the losses of each validation of a single search; an exception that it
            raises ends the run.

    Raises:
        UserError: If the config, the data, the device or the run folder cannot be used, no network of the space meets
            the budget, or a loss is not finite.

    Example:
        One step on synthetic pairs in a space of two networks, for the sake of brevity:

        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> operators = ("residual_k3_d1", "dense_k3_d1")
        >>> sections = {
        ...     "data": {"synthetic_pairs": 4, "crop": 16, "batch_size": 1},
        ...     "space": {"preset": "tim", "channels": 2, "cells": ("successive",), "steps": 1, "operators": operators},
        ...     "search": {"steps": 1, "warmup": 0, "inner_loss": "saliency", "outer_loss": "saliency"},
        ...     "cost": {"height": 16, "width": 16},
        ...     "verify": {"candidates": 0},
        ... }
        >>> with TemporaryDirectory() as run:
        ...     result = search(SearchConfig(run=Path(run), **sections))
        >>> result.best_seed, result.genotype.channels
        (0, 2)
    """
    if config.seeds > 1:
        result = search_seeds(config, _search_once, resume=resume, overwrite=overwrite)
    else:
        genotype = _search_once(config, resume=resume, overwrite=overwrite, on_validation=on_validation)
        front = {budget.text: load_genotype(front_folder(config.run, budget)) for budget in config.cost.parsed_front}
        result = SearchResult(genotype, {config.seed: genotype}, config.seed, front=front)
    if config.candidates:
        verification = verify(config, overwrite=overwrite)
        result = replace(result, genotype=load_genotype(config.run), verification=verification)
    write_report(config)
    return result


def _search_once(
    config: SearchConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_validation: Callable[[int, Scores], None] | None = None,
    first_stage: FirstStage | None = None,
) -> Genotype:
    """Search with one seed.

    With a downstream task, the loss of a task network on the fused images scores the architecture; the fusion loss
    still trains the weights. The task network learns too: in the warm-up by one more forward pass of the supernet,
    afterwards as a part of the outer variables.
    """
    settings = config.search
    with open_loop(config, resume=resume, overwrite=overwrite) as loop:
        ranks, device = loop.ranks, loop.device
        ranks.check_even("data.batch_size", config.data.batch_size)
        parts, scorer = open_parts(config, device, ranks, resume, first_stage)
        batches, penalty = parts.batches, parts.penalty
        loop.open_folder(
            pairs=len(batches.pairs.source),
            fingerprint=batches.pairs.fingerprint,
            harmless=["search.checkpoint_every", *VERIFY_KEYS],
        )
        if parts.first_stage is not None:
            if ranks.leads:
                parts.first_stage.keep(config.run)
            parts.first_stage.network.to(device)
        if ranks.leads and penalty is not None and penalty.table:
            save_latency_table(config.run / LATENCY_FILE, penalty.table, device)
        # After the measurements, which draw random inputs only where the cache lacks them.
        seed_everything(config.seed)
        state = set_up(config, device, scorer, penalty)
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
                    row, relax_all(state.decisions.detach(), row["temperature"]), config.space.search_space
                ),
                on_validation=on_validation,
                **config.rhythm,
            )
        probabilities, warnings = relax_all(state.decisions.detach(), settings.temperature[1]), state.guards.given
        alone = parts._replace(batches=replace(batches, ranks=ALONE), ranks=ALONE)
        genotype = ranks.from_leader(
            lambda: conclude(
                config,
                alone,
                state.supernet,
                probabilities,
                warnings=warnings,
                scorer=scorer,
                announce=loop.print,
            )
        )
        if not config.candidates and (warning := beyond_crops(genotype, config.data.crop)) is not None:
            loop.print(f"warning: {warning}")
        return genotype


def _observed(config: SearchConfig, state: SearchState, row: Row, loop: Loop) -> Row:
    """Print what the guards find in a step, and add the operator probabilities to its row now and then."""
    probabilities = relax_all(state.decisions.detach(), row["temperature"])
    for warning in state.guards.observe(state.step, row["inner_loss"], probabilities):
        loop.print(f"warning: {warning}")
    if state.step % PROBABILITY_EVERY == 0 or state.step == config.search.steps - 1:
        row["probability"] = named_probabilities(probabilities, config.space.search_space)
    return row


def _validate(config: SearchConfig, state: SearchState, parts: SearchParts) -> Scores:
    """Average both losses of the supernet over the validation batches."""
    temperature = temperature_at(state.step - 1, config.search.steps, *config.search.temperature)
    probabilities = relax_all(state.decisions.detach(), temperature)
    losses = validation_losses(parts, fused_by(state.supernet, parts.first_stage, probabilities), state.scorer)
    (means,) = parts.ranks.average([torch.tensor(list(losses.values()), dtype=torch.float64)])
    return {"mean": dict(zip(losses, means.tolist(), strict=True))}
