"""The training, from a genotype and image pairs to weights: setup, step, validation, conclusion."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..data import PairBatch
from ..drawing.example_sheet import draw_examples
from ..genotypes import Genotype, save_genotype
from ..objectives.metrics import ruler_of
from ..objectives.trivial_fusion import TRIVIAL
from ..operators import beyond_crops, count_parameters, save_network_folder, synchronised
from ..runtime.averaged_gradients import average_gradients
from ..runtime.distribution import Ranks
from ..runtime.errors import check_finite
from ..runtime.history import drawn_history
from ..runtime.loop import Loop, Row, Scores, open_loop
from ..runtime.run_files import GENOTYPE_FILE, LAST_WEIGHTS_FILE, PICTURES_FOLDER
from ..runtime.schedules import warmed_cosine
from ..runtime.seeds import seed_everything
from ..runtime.weights import load_into, save_weights
from .first_stage import loss_of_stages, run_stages
from .train_config import TrainConfig
from .train_curves import draw_curves
from .train_setup import TrainParts, TrainState, fast_precision, open_parts, set_up
from .train_validation import Validation, validate


class Training(NamedTuple):
    """The result of a training.

    Attributes:
        genotype: The network with its provenance, as in `genotype.yaml`.
        best_step: The step after which the network had its best weights, from 0.
        scores: Scores of the best weights, under "best", and of each method without a network, by its name.
    """

    genotype: Genotype
    best_step: int
    scores: dict[str, Scores]


def train(config: TrainConfig, *, resume: bool = False, overwrite: bool = False) -> Training:
    """Train a fusion network, or a refine network behind a trained fusion network, and write the run folder.

    The moving average of the weights is validated and kept; the best weights are those with the least validation loss,
    averaged over the data sets. Where `torchrun` started several processes, each computes a part of every batch, and
    the result equals that of one process up to rounding.

    Args:
        config: The network, the data and the optimisation; `config.run` is the run folder.
        resume: Whether to go on from the run's checkpoint. The result is the same to the bit.
        overwrite: Whether to replace the run in the folder.

    Raises:
        UserError: If the config, the data, the device or the run folder cannot be used, or a loss is not finite.

    Example:
        >>> training = train(TrainConfig(task="mri-ct", data={"synthetic_pairs": 8}))  # doctest: +SKIP
        >>> list(training.scores)  # doctest: +SKIP
        ['best', 'average', 'maximum']
    """
    with open_loop(config, resume=resume, overwrite=overwrite) as loop:
        ranks, device = loop.ranks, loop.device
        ranks.check_even("data.batch_size", config.data.batch_size)
        parts = open_parts(config, device, ranks, resume)
        seed_everything(config.seed)
        state = set_up(config, parts.genotype, device)
        pairs, first_stage = parts.pairs, parts.first_stage
        loop.open_folder(pairs=len(pairs.source), fingerprint=pairs.fingerprint, harmless=["train.checkpoint_every"])
        if first_stage is not None:
            if ranks.leads:
                first_stage.keep(config.run)
            first_stage.network.to(device)
        if (warning := beyond_crops(parts.genotype, config.data.crop)) is not None:
            loop.print(f"warning: {warning}")
        loop.start(state)
        batches = pairs.batches(
            "train", state.step, config.train.steps, seed=config.seed, device=device, ranks=ranks, **config.data.crops
        )
        with synchronised(state.network, ranks):
            loop.run(
                state,
                step=lambda: train_step(config, state, parts, next(batches), ranks),
                validate=partial(_validate, config, state, parts, loop),
                remedy="train.learning_rate or train.clip",
                **config.rhythm,
            )
        # The first process alone validates and knows the best step.
        return ranks.from_leader(lambda: _conclude(config, state.average.module, state.best_step, parts))


def train_step(config: TrainConfig, state: TrainState, parts: TrainParts, batch: PairBatch, ranks: Ranks) -> Row:
    """Update the weights and their average."""
    settings, device = config.train, batch.first.device
    learning_rate = warmed_cosine(settings.learning_rate, state.step, settings.steps, settings.warmup)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.network.train()
    precision = fast_precision(settings.precision, device)
    with torch.autocast(device.type, precision, enabled=precision is not None):
        images = run_stages(state.network, parts.first_stage, batch.first, batch.second)
    value = loss_of_stages(parts.loss, images, batch.first, batch.second, settings.side_weight)
    state.optimizer.zero_grad()
    state.scaler.scale(value).backward()
    # Before the scaler looks for gradients that overflowed, so that all processes pass over the same steps.
    (value,) = average_gradients(state.optimizer, [value.detach()], ranks)
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
    loss, gradient_norm = torch.stack([value, norm]).tolist()
    # The scaler passes over a step whose gradients overflow.
    check_finite({"loss": loss} if state.scaler.is_enabled() else {"loss": loss, "gradient": gradient_norm})
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.average.update_parameters(state.network)
    return {"loss": loss, "gradient_norm": gradient_norm, "learning_rate": learning_rate}


def _validate(config: TrainConfig, state: TrainState, parts: TrainParts, loop: Loop) -> Scores | None:
    """Score the averaged weights, keep them as the last ones and, if no others did better, as the best."""
    if not loop.ranks.leads:
        return None
    network, step = state.average.module, state.step - 1
    validation = _score(config, parts, network)
    loop.log_examples(step, validation.examples)
    score = validation.scores["mean"]["loss"]
    check_finite({"validation loss": score})
    save_weights(config.run / LAST_WEIGHTS_FILE, network.state_dict(), {"genotype": parts.genotype.name})
    if score < state.best_loss:
        state.best_loss, state.best_step = score, step
        save_network_folder(config.run, _described(config, parts, network, step, {"best": validation.scores}), network)
    return validation.scores


def _conclude(config: TrainConfig, network: nn.Module, best_step: int, parts: TrainParts) -> Training:
    """Score the best weights beside fusion without a network, and draw; the genotype comes last."""
    load_into(network, config.run)
    best, device = _score(config, parts, network), next(network.parameters()).device
    ruler = ruler_of(parts.genotype.task)
    trivial = {
        name: validate(fuse, parts.pairs.sets, parts.loss, device, metrics=ruler).scores
        for name, fuse in TRIVIAL.items()
    }
    scores = {"best": best.scores, **trivial}
    genotype = _described(config, parts, network, best_step, scores)
    pictures = config.run / PICTURES_FOLDER
    draw_examples(best.examples, pictures)
    with drawn_history(config.run) as history:
        draw_curves(history, pictures, scores)
    save_genotype(genotype, config.run / GENOTYPE_FILE)
    return Training(genotype, best_step, scores)


def _score(config: TrainConfig, parts: TrainParts, network: nn.Module) -> Validation:
    def fuse(first: Tensor, second: Tensor) -> Tensor:
        return run_stages(network, parts.first_stage, first, second)[0]

    device = next(network.parameters()).device
    return validate(fuse, parts.pairs.sets, parts.loss, device, config.train.images, ruler_of(parts.genotype.task))


def _described(
    config: TrainConfig, parts: TrainParts, network: nn.Module, best_step: int, metrics: Mapping[str, Scores]
) -> Genotype:
    return config.described(
        parts.genotype,
        data={"root": config.data.origin, **parts.pairs.described},
        steps=config.train.steps,
        best_step=best_step,
        parameters=count_parameters(network),
        metrics=metrics,
        architecture=parts.genotype.architecture,
    )
