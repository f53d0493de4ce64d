"""The training, from a genotype and image pairs to weights: setup, step, validation, conclusion."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..data import PairBatch, RunPairs
from ..drawing.example_sheet import draw_examples
from ..genotypes import Genotype, load_genotype, save_genotype
from ..objectives import FusionLoss, training_loss
from ..objectives.loss_section import fusion_loss
from ..operators import build_network, count_parameters, save_network_folder, synchronised
from ..runtime.averaged_gradients import average_gradients
from ..runtime.averaging import moving_average
from ..runtime.distribution import Ranks
from ..runtime.errors import UserError, check_finite
from ..runtime.history import read_history
from ..runtime.loop import Loop, Row, Scores, open_loop
from ..runtime.run_files import FIRST_STAGE_FOLDER, GENOTYPE_FILE, HISTORY_FILE, LAST_WEIGHTS_FILE, PICTURES_FOLDER
from ..runtime.schedules import warmed_cosine
from ..runtime.seeds import seed_everything
from ..runtime.weights import load_into, save_weights
from .first_stage import fuse, load_first_stage
from .train_config import TrainConfig
from .train_curves import draw_curves
from .train_validation import SMALLEST, TRIVIAL, Fuse, validate


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


@dataclass
class _State:
    """Everything that a step or a validation changes."""

    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # does nothing unless gradients are of half precision
    step: int = 0
    best_loss: float = math.inf
    best_step: int = -1


class _Parts(NamedTuple):
    """What a training works with and does not change."""

    genotype: Genotype
    first_stage: nn.Module | None  # a refine network refines its output
    loss: FusionLoss
    pairs: RunPairs
    parameters: int  # of the network

    def fuse(self, network: nn.Module) -> Fuse:
        """Return the function that fuses two (N, 1, H, W) sources by a network."""
        return lambda first, second: fuse(network, self.first_stage, first, second)[0]


def train(config: TrainConfig, *, resume: bool = False, overwrite: bool = False) -> Training:
    """Train a fusion network, or a refine network behind a trained fusion network, and write the run folder.

    The moving average of the weights is what is validated and kept; the best weights are those with the least
    validation loss, averaged over the data sets. Where `torchrun` started several processes, each computes a part of
    every batch, and the result equals that of one process up to rounding.

    Args:
        config: The network, the data and the optimisation; `config.run` is the run folder.
        resume: Whether to go on from the run's checkpoint. The result is the same to the bit.
        overwrite: Whether to replace the run in the folder.

    Returns:
        The genotype as written to `genotype.yaml`, and the scores of the best weights.

    Raises:
        UserError: If the config, the data, the device or the run folder cannot be used, or a loss is not finite.
    """
    settings = config.train
    with open_loop(config, resume=resume, overwrite=overwrite) as loop:
        ranks, device = loop.ranks, loop.device
        ranks.check_even("data.batch_size", config.data.batch_size)
        genotype = ranks.from_leader(lambda: _genotype(config))
        loss = fusion_loss(config.loss, training_loss(genotype.task), config.data.crop)
        pairs = config.data.open_pairs(
            genotype.task,
            config.sources,
            config.seed,
            minimum_size=max(config.data.crop, SMALLEST),
            validation_pairs=config.data.validation_pairs,
            shares=config.data.shares,
        )
        first_genotype, first_stage = _first_stage(config, resume, ranks)
        seed_everything(config.seed)
        state = _setup(config, genotype, device)
        parts = _Parts(genotype, first_stage, loss, pairs, count_parameters(state.network))
        loop.open_folder(pairs=len(pairs.source), fingerprint=pairs.fingerprint, harmless=["train.checkpoint_every"])
        if first_genotype is not None and first_stage is not None:
            if ranks.leads:
                save_network_folder(config.run / FIRST_STAGE_FOLDER, first_genotype, first_stage)
            first_stage.to(device)
        loop.start(state)
        batches = pairs.batches(
            "train",
            state.step,
            settings.steps,
            seed=config.seed,
            device=device,
            ranks=ranks,
            **config.data.crops,
        )
        with synchronised(state.network, ranks):
            loop.run(
                state,
                step=lambda: _step(config, state, parts, next(batches), ranks),
                validate=partial(_validate, config, state, parts, loop),
                remedy="train.learning_rate or train.clip",
                **config.rhythm,
            )
        # The first process alone validates and knows the best step.
        return ranks.from_leader(lambda: _conclude(config, state.average.module, state.best_step, parts))


def _genotype(config: TrainConfig) -> Genotype:
    genotype = load_genotype(config.genotype)
    if genotype.network == "refine" and config.first_stage is None:
        raise UserError(
            f"{genotype.name} is a refine network: give first_stage, the run folder of the trained network it refines"
        )
    if genotype.network != "refine" and config.first_stage is not None:
        raise UserError(f"{genotype.name} is no refine network, and so has no first_stage; leave that out")
    return config.for_task(genotype)


def _first_stage(config: TrainConfig, resume: bool, ranks: Ranks) -> tuple[Genotype | None, nn.Module | None]:
    """Load the first stage of a refine network; a resumed run keeps its own copy."""
    if config.first_stage is None:
        return None, None
    own = config.run / FIRST_STAGE_FOLDER
    begun = resume and (own / GENOTYPE_FILE).is_file()
    return load_first_stage(own if begun else config.first_stage.expanduser(), ranks)


def _setup(config: TrainConfig, genotype: Genotype, device: torch.device) -> _State:
    settings = config.train
    network = build_network(genotype).to(device)
    if config.init is not None:
        load_into(network, config.init.expanduser())
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    half = _precision(settings.precision, device) is torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    return _State(network, moving_average(network, settings.ema), optimizer, scaler)


def _precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Choose the type in which a device multiplies fastest; None where it is float32."""
    if precision == "float32" or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _step(config: TrainConfig, state: _State, parts: _Parts, batch: PairBatch, ranks: Ranks) -> Row:
    """Update the weights and their average."""
    settings, device = config.train, batch.first.device
    learning_rate = warmed_cosine(settings.learning_rate, state.step, settings.steps, settings.warmup)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.network.train()
    precision = _precision(settings.precision, device)
    with torch.autocast(device.type, precision, enabled=precision is not None):
        fused, *sides = fuse(state.network, parts.first_stage, batch.first, batch.second)
    value = parts.loss(fused.to(batch.first.dtype), batch.first, batch.second)
    for side, source in zip(sides, (batch.first, batch.second), strict=False):
        value = value + settings.side_weight * (side.to(source.dtype) - source).abs().mean()
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


def _validate(config: TrainConfig, state: _State, parts: _Parts, loop: Loop) -> Scores | None:
    """Score the averaged weights, keep them as the last ones and, if no others did better, as the best."""
    if not loop.ranks.leads:
        return None
    network, step = state.average.module, state.step - 1
    validation = validate(parts.fuse(network), parts.pairs.sets, parts.loss, loop.device, config.train.images)
    for name, image in validation.examples.items():
        loop.log_image(step, f"examples/{name}", image)
    score = validation.scores["mean"]["loss"]
    check_finite({"validation loss": score})
    save_weights(config.run / LAST_WEIGHTS_FILE, network.state_dict(), {"genotype": parts.genotype.name})
    if score < state.best_loss:
        state.best_loss, state.best_step = score, step
        save_network_folder(config.run, _described(config, parts, step, {"best": validation.scores}), network)
    return validation.scores


def _conclude(config: TrainConfig, network: nn.Module, best_step: int, parts: _Parts) -> Training:
    """Score the best weights beside fusion without a network, and draw; the genotype comes last."""
    load_into(network, config.run)
    device, sets = next(network.parameters()).device, parts.pairs.sets
    best = validate(parts.fuse(network), sets, parts.loss, device, config.train.images)
    trivial = {name: validate(method, sets, parts.loss, device).scores for name, method in TRIVIAL.items()}
    scores = {"best": best.scores, **trivial}
    genotype = _described(config, parts, best_step, scores)
    pictures = config.run / PICTURES_FOLDER
    draw_examples(best.examples, pictures)
    draw_curves(read_history(config.run / HISTORY_FILE), pictures, scores)
    save_genotype(genotype, config.run / GENOTYPE_FILE)
    return Training(genotype, best_step, scores)


def _described(config: TrainConfig, parts: _Parts, best_step: int, metrics: Mapping[str, Scores]) -> Genotype:
    return config.described(
        parts.genotype,
        data={"root": config.data.origin, **parts.pairs.counts},
        steps=config.train.steps,
        best_step=best_step,
        parameters=parts.parameters,
        metrics=metrics,
        architecture=parts.genotype.architecture,
    )
