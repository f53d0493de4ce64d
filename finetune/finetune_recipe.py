"""The finetuning, from a fusion network and labelled pairs to one that serves a task: setup, step, validation, end."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from ..data import PairBatch
from ..data.corruptions import corrupt_some
from ..downstream import keep_guiding_detectors, keep_task_network, load_task_weights
from ..downstream.task_network import average_statistics
from ..drawing.example_sheet import draw_examples
from ..genotypes import Genotype, save_genotype
from ..operators import count_parameters, save_network_folder
from ..runtime.averaged_gradients import average_row
from ..runtime.distribution import Ranks
from ..runtime.errors import UserError, check_finite
from ..runtime.history import drawn_history
from ..runtime.loop import Loop, Row, Scores, open_loop
from ..runtime.run_files import GENOTYPE_FILE, PICTURES_FOLDER
from ..runtime.schedules import warmed_cosine
from ..runtime.seeds import derive_seed, seed_everything
from ..runtime.weights import load_into
from .finetune_config import FinetuneConfig
from .finetune_curves import draw_finetuning
from .finetune_setup import FinetuneParts, FinetuneState, open_parts, set_up
from .promise import Promise
from .strategies import DetFusion, Lagrangian
from .task_validation import PRIMARY, Validation, rank_of, trivial_losses, validate


class Finetuning(NamedTuple):
    """The result of a finetuning.

    Attributes:
        genotype: The fusion network with its provenance, as in `genotype.yaml`.
        best_step: The step after which the networks had their best weights, from 0.
        scores: Scores of the best weights on the validation pairs, as in `Validation`.
        fusion_loss_before: The fusion loss of the initial network on the validation pairs.
        promise: What "lagrangian" promises of the fusion loss; None for another strategy.
        trivial: The method without a network that the promise refers to.
    """

    genotype: Genotype
    best_step: int
    scores: Scores
    fusion_loss_before: float
    promise: Promise | None
    trivial: str

    @property
    def promise_kept(self) -> bool:
        """Whether the best weights keep what was promised, if anything was."""
        return self.promise is None or self.promise.kept(self.scores["mean"]["loss"])


def finetune(config: FinetuneConfig, *, resume: bool = False, overwrite: bool = False) -> Finetuning:
    """Adapt a fusion network to what its images are for, train the task's network with it, and write the run folder.

    The moving averages of the weights are validated and kept. The best ones have the highest AP50 or mIoU on the
    validation pairs; under "lagrangian" they also keep the promise there, or come closest to it if none does.

    Where `torchrun` started several processes, each computes a part of every batch and all take the mean of the
    gradients. It equals the gradient of the whole batch except for the task network: its loss is divided by the number
    of objects in a part, and it normalises with the statistics of a part.

    Args:
        config: The networks, the data and the guidance; `config.run` is the run folder.
        resume: Whether to go on from the run's checkpoint. The result is the same to the bit.
        overwrite: Whether to replace the run in the folder.

    Raises:
        UserError: If the config, the data, the device or the run folder cannot be used, or a loss is not finite.

    Example:
        One step on synthetic pairs, for the sake of brevity:

        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> data = {"synthetic_pairs": 3, "validation_pairs": 1, "crop": 48, "batch_size": 1}
        >>> with TemporaryDirectory() as run:
        ...     config = FinetuneConfig(run=Path(run), data=data, train={"steps": 1, "warmup": 0, "images": 0})
        ...     finetuning = finetune(config)
        >>> finetuning.best_step, list(finetuning.scores["mean"])
        (0, ['loss'])
    """
    settings, data = config.train, config.data
    with open_loop(config, resume=resume, overwrite=overwrite) as loop:
        ranks, device = loop.ranks, loop.device
        parts, network = open_parts(config, device, ranks)
        pairs = parts.pairs
        seed_everything(config.seed)
        state = set_up(config, network, parts, device, ranks)
        loop.open_folder(pairs=len(pairs.source), fingerprint=pairs.fingerprint, harmless=["train.checkpoint_every"])
        loop.start(state)
        if not loop.resumes:
            state.reference = ranks.from_leader(lambda: _score(config, state, parts).scores["mean"]["loss"])
            if isinstance(state.strategy, Lagrangian):
                state.trivial = ranks.from_leader(lambda: trivial_losses(pairs, parts.loss, device))
        if isinstance(state.strategy, Lagrangian):
            state.strategy.promise = promise = _promise(config, state)
            assert promise is not None
            if promise.gain <= 0 and not loop.resumes:
                loop.print(
                    f"warning: at the start the network has a fusion loss of {promise.start:.3f}, no better than the"
                    f" {_best_trivial(state)} with {promise.trivial:.3f}, which it has to pass to keep the promise;"
                    " start from a trained network"
                )
        steps = state.strategy.preparation + settings.steps
        labelled = pairs.source.labels is not None
        crops = data.crops | {"scale": data.scale if labelled else None, "upright": labelled}
        crops["colour"] = parts.colour
        task_batches, fusion_batches = (
            pairs.batches(name, state.step, steps, seed=config.seed, device=device, ranks=ranks, **crops)
            for name in ("task", "fusion")
        )

        def step() -> Row:
            batch = fusion_batch = next(task_batches)
            if config.strategy == "learned_loss":
                fusion_batch = next(fusion_batches)
            if robust := config.guidance.robust:
                places = ranks.share(range(data.batch_size))
                seeds = [derive_seed(config.seed, "corruption", state.step, place) for place in places]
                batch = corrupt_some(batch, robust, seeds, coloured=parts.genotype.colour_source)
            return _step(config, state, batch, fusion_batch, ranks)

        loop.run(
            state,
            step=step,
            validate=partial(_validate, config, state, parts, loop),
            remedy="train.learning_rate or train.clip" + (", or downstream.learning_rate" if config.downstream else ""),
            status=_status,
            validate_after=state.strategy.preparation + settings.validate_every,
            **config.rhythm | {"steps": steps},
        )
        if config.strategy == "lagrangian" and not state.best[0]:
            loop.print(
                f"warning: no validation kept the promise; the weights of step {state.best_step} come closest."
                " Raise guidance.multiplier_rate or guidance.tolerance, or lower train.learning_rate"
            )
        # The first process alone validates and knows the best step.
        return ranks.from_leader(lambda: _conclude(config, state, parts))


def _promise(config: FinetuneConfig, state: FinetuneState) -> Promise | None:
    if config.strategy != "lagrangian":
        return None
    losses = state.trivial.values()
    return Promise(state.reference, min(losses), max(max(losses) - min(losses), 1e-6), config.guidance.tolerance)


def _best_trivial(state: FinetuneState) -> str:
    return min(state.trivial, key=state.trivial.__getitem__, default="")


def _step(config: FinetuneConfig, state: FinetuneState, batch: PairBatch, fusion_batch: PairBatch, ranks: Ranks) -> Row:
    """Update whatever the strategy gave gradients."""
    settings, strategy = config.train, state.strategy
    preparing = state.step < strategy.preparation
    step = state.step if preparing else state.step - strategy.preparation
    factor = warmed_cosine(1.0, step, strategy.preparation if preparing else settings.steps, settings.warmup)
    for group in state.optimizer.param_groups:
        group["lr"] = group["highest"] * factor
    # A function of the step alone: estimators rewind the generator, and dropout would repeat itself.
    torch.manual_seed(derive_seed(config.seed, "forward", state.step))
    if state.networks.task is not None:
        assert config.downstream is not None
        state.networks.task.train(not config.downstream.frozen)
    state.optimizer.zero_grad()
    row = strategy.backward(state.step, settings.learning_rate * factor, batch, fusion_batch)
    if ranks.count > 1:
        row = average_row(row, state.optimizer, ranks)
        for module in filter(None, (state.networks.task, strategy.own)):
            average_statistics(module, ranks)
    norms = {
        name: nn.utils.clip_grad_norm_(module.parameters(), settings.clip).item()
        for name, module in (*state.networks.named_children(), ("own", strategy.own))
        if any(parameter.grad is not None for parameter in module.parameters())
    }
    measured = {name.replace("_", " "): value for name, value in row.items()}
    check_finite(measured | {f"gradient of the {name}": norm for name, norm in norms.items()})
    state.optimizer.step()
    if not preparing:
        state.average.update_parameters(state.networks)
    return row | {"gradient_norm": norms}


def _score(config: FinetuneConfig, state: FinetuneState, parts: FinetuneParts) -> Validation:
    """Score the averaged weights."""
    networks = state.averaged
    return validate(
        lambda first, second: state.strategy.fuse(networks.network, first, second),
        None if networks.task is None else networks.task.eval(),
        parts.pairs,
        parts.loss,
        next(networks.parameters()).device,
        shown=state.strategy.shown,
        colour=parts.colour,
        examples=config.train.images,
    )


def _validate(config: FinetuneConfig, state: FinetuneState, parts: FinetuneParts, loop: Loop) -> Scores | None:
    """Score the averaged weights, and keep them if they are the best so far."""
    if not loop.ranks.leads:
        return None
    validation = _score(config, state, parts)
    scores = validation.scores["mean"]
    loop.log_examples(state.step - 1, validation.examples)
    check_finite({"validation loss": scores["loss"]})
    primary = None if config.downstream is None else PRIMARY[config.downstream.kind]
    rank = rank_of(scores, primary, _promise(config, state))
    if math.isnan(rank[1]):
        raise UserError("the validation pairs have no labels to be scored by; give others in val.txt")
    if rank > state.best:
        state.best, state.best_step = rank, state.step - 1
        networks = state.averaged
        if networks.task is not None:
            keep_task_network(networks.task, config.run)
        if isinstance(state.strategy, DetFusion):
            keep_guiding_detectors(state.strategy.detectors, config.run)
        save_network_folder(config.run, _described(config, state, parts, validation.scores), networks.network)
    return validation.scores


def _conclude(config: FinetuneConfig, state: FinetuneState, parts: FinetuneParts) -> Finetuning:
    """Score the best weights and draw; the genotype comes last."""
    networks = state.averaged
    load_into(networks.network, config.run)
    if networks.task is not None:
        load_task_weights(networks.task, config.run)
    validation = _score(config, state, parts)
    pictures = config.run / PICTURES_FOLDER
    draw_examples(validation.examples, pictures)
    with drawn_history(config.run) as history:
        draw_finetuning(history, pictures, state.reference, min(state.trivial.values(), default=None))
    genotype = _described(config, state, parts, validation.scores)
    save_genotype(genotype, config.run / GENOTYPE_FILE)
    return Finetuning(
        genotype, state.best_step, validation.scores, state.reference, _promise(config, state), _best_trivial(state)
    )


def _described(config: FinetuneConfig, state: FinetuneState, parts: FinetuneParts, scores: Scores) -> Genotype:
    metrics = {
        part: {name: None if math.isnan(value) else value for name, value in row.items()}
        for part, row in scores.items()
    }
    promised: dict[str, Any] = {}
    if config.strategy == "lagrangian":
        promised = {"fusion_losses_without_network": state.trivial, "promise_kept": state.best[0]}
    return config.described(
        parts.genotype,
        data={"root": config.data.origin, **parts.pairs.described},
        **config.guidance_provenance(parts.pairs.source.classes),
        steps=config.train.steps,
        best_step=state.best_step,
        fusion_loss_before=state.reference,
        **promised,
        parameters=count_parameters(state.networks.network),
        metrics={"best": metrics},
        architecture=parts.genotype.architecture,
    )


def _status(row: Mapping[str, Any]) -> str:
    names = ("detector_loss", "task_loss", "fusion_loss", "multiplier")
    return ", ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in names if name in row)
