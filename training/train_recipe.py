"""The training, from a genotype and image pairs to weights: setup, the steps, conclusion."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..data import PairBatch, RunPairs
from ..genotypes import Genotype, load_genotype
from ..objectives import FusionLoss
from ..operators import build_network, synchronised
from ..runtime.averaged_gradients import average_gradients
from ..runtime.averaging import moving_average
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
from .first_stage import FOLDER, fuse, keep_first_stage, load_first_stage
from .train_conclusion import Training, conclude, keep_best
from .train_config import TrainConfig, TrainSection
from .train_validation import validate

HARMLESS = ("run", "data.workers", "data.cache_megabytes", "train.checkpoint_every")  # may differ on resuming


def train(config: TrainConfig, *, resume: bool = False, overwrite: bool = False) -> Training:
    """Train a fusion network, or a refine network behind a trained fusion network, and write the run folder.

    The weights that are validated and kept are the moving average of the trained ones; the best are those with the
    lowest validation loss, averaged over the data sets. Where `torchrun` started several processes, each has its part
    of every batch, and the result is to rounding that of one process.

    Args:
        config: what to train, on what and how; `config.run` is the folder.
        resume: go on from the run's checkpoint, to the bit.
        overwrite: replace the run that is in the folder.

    Returns:
        The genotype as written to `genotype.yaml`, and the scores of the best weights.

    Raises:
        UserError: the config, the data, the device or the run folder cannot be used, or a loss became non-finite.
    """
    keep_freed_memory()
    with open_ranks() as ranks:
        device = select_device(config.device, ranks.local)
        ranks.check_even("data.batch_size", config.data.batch_size)
        loss = config.loss.loss(config.data.crop)
        genotype = ranks.from_leader(lambda: _genotype(config))
        pairs = config.data.open_pairs(genotype.task, config.seed)
        first_genotype, first_stage = _first_stage(config, resume, ranks)
        seed_everything(config.seed)
        state = _setup(config, genotype, device)
        with open_led_run(
            config.run,
            config,
            ranks,
            resume=resume,
            overwrite=overwrite,
            harmless=HARMLESS,
            pairs=len(pairs.source),
            fingerprint=pairs.fingerprint,
        ) as run:
            if first_genotype is not None and first_stage is not None:
                if ranks.leads:
                    keep_first_stage(first_genotype, first_stage, run.path)
                first_stage.to(device)
            if run.resumes:
                _restore(state, run.load_checkpoint(), run.path)
            elif ranks.count > 1:  # each may have read other initial weights
                _restore(state, ranks.from_leader(lambda: _captured(state)), run.path)
            run.start("training", config.train.steps, state.step)
            with synchronised(state.network, ranks):
                _fit(config, state, genotype, first_stage, loss, pairs, run)
            # The best step is known to the first process alone, which validates.
            return ranks.from_leader(
                lambda: conclude(config, genotype, state.average.module, first_stage, loss, pairs, state.best_step)
            )


def _genotype(config: TrainConfig) -> Genotype:
    genotype = load_genotype(config.genotype)
    if genotype.network == "refine" and config.first_stage is None:
        raise UserError(
            f"{genotype.name} is a refine network: give first_stage, the run folder of the trained network it refines"
        )
    if genotype.network != "refine" and config.first_stage is not None:
        raise UserError(f"{genotype.name} is no refine network, and so has no first_stage; leave that out")
    if config.task is None or config.task == genotype.task:
        return genotype
    return replace(genotype, task=config.task, sources=None, colour=None)


def _first_stage(config: TrainConfig, resume: bool, ranks: Ranks) -> tuple[Genotype | None, nn.Module | None]:
    """Load the first stage of a refine network; a run keeps the one that it began with."""
    if config.first_stage is None:
        return None, None
    own = config.run / FOLDER
    begun = resume and (own / "genotype.yaml").is_file()
    return load_first_stage(own if begun else config.first_stage.expanduser(), ranks)


@dataclass
class _State:
    """Everything that a training changes: what a checkpoint holds, beside the random generators."""

    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # does nothing unless gradients are of half precision
    precision: torch.dtype | None  # of the network's forward pass; None for its own
    step: int = 0
    best_loss: float = math.inf
    best_step: int = -1


def _setup(config: TrainConfig, genotype: Genotype, device: torch.device) -> _State:
    settings = config.train
    network = build_network(genotype).to(device)
    if config.init is not None:
        path = config.init.expanduser()
        load_into(network, path / "weights.safetensors" if path.is_dir() else path)
    precision = None if settings.precision == "float32" else _mixed_precision(device)
    return _State(
        network,
        moving_average(network, settings.ema),
        torch.optim.AdamW(
            network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        ),
        torch.amp.GradScaler(device.type, enabled=precision is torch.float16),
        precision,
    )


def _mixed_precision(device: torch.device) -> torch.dtype | None:
    """Choose the type in which a device multiplies fastest; None where that is float32 itself."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _fit(
    config: TrainConfig,
    state: _State,
    genotype: Genotype,
    first_stage: nn.Module | None,
    loss: FusionLoss,
    pairs: RunPairs,
    run: LedRun,
) -> None:
    """Run the steps that are left, with validations and checkpoints now and then and at the end."""
    settings, data, ranks = config.train, config.data, run.ranks
    batches = pairs.batches(
        "train",
        state.step,
        settings.steps,
        batch_size=data.batch_size,
        crop=data.crop,
        seed=config.seed,
        workers=data.workers,
        device=next(state.network.parameters()).device,
        ranks=ranks,
    )
    validated = ""
    with deferred_interrupt() as interrupted:
        while state.step < settings.steps:
            row = _step(settings, state, first_stage, loss, next(batches), ranks)
            last = state.step == settings.steps - 1
            if ranks.leads and ((state.step + 1) % settings.validate_every == 0 or last):
                row["validation"] = scores = _validate(config, state, genotype, first_stage, loss, pairs, run)
                validated = ", validated: " + ", ".join(f"{name} {value:.3f}" for name, value in scores["mean"].items())
            run.log(state.step, row)
            state.step += 1
            run.advance(f"loss {row['loss']:.4f}{validated}")
            stop = ranks.agree(interrupted())
            if state.step % settings.checkpoint_every == 0 or last or stop:
                run.save_checkpoint(_captured(state))
            if stop:
                raise StoppedError(f"stopped before step {state.step}; go on with --resume")


def _step(
    settings: TrainSection,
    state: _State,
    first_stage: nn.Module | None,
    loss: FusionLoss,
    batch: PairBatch,
    ranks: Ranks,
) -> dict[str, Any]:
    """Update the weights and their average; return what to log."""
    learning_rate = warmed_cosine(settings.learning_rate, state.step, settings.steps, settings.warmup)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.network.train()
    with torch.autocast(batch.first.device.type, state.precision, enabled=state.precision is not None):
        fused, *sides = fuse(state.network, first_stage, batch.first, batch.second)
    value = loss(fused.to(batch.first.dtype), batch.first, batch.second)
    for side, source in zip(sides, (batch.first, batch.second), strict=False):
        value = value + settings.side_weight * (side.to(source.dtype) - source).abs().mean()
    state.optimizer.zero_grad()
    state.scaler.scale(value).backward()
    # Before the scaler looks for gradients that overflowed, so that all processes pass over the same steps.
    (value,) = average_gradients(state.optimizer, [value.detach()], ranks)
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
    loss_value, gradient_norm = torch.stack([value, norm]).tolist()
    _check_finite(state.step, "loss", loss_value)
    if not state.scaler.is_enabled():  # which passes over a step whose gradients overflow
        _check_finite(state.step, "gradient", gradient_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.average.update_parameters(state.network)
    return {"loss": loss_value, "gradient_norm": gradient_norm, "learning_rate": learning_rate}


def _validate(
    config: TrainConfig,
    state: _State,
    genotype: Genotype,
    first_stage: nn.Module | None,
    loss: FusionLoss,
    pairs: RunPairs,
    run: LedRun,
) -> dict[str, dict[str, float]]:
    """Score the averaged weights, keep them as the last ones and, if no others did better, as the best."""
    network = state.average.module
    device = next(network.parameters()).device
    validation = validate(
        lambda first, second: fuse(network, first_stage, first, second)[0],
        pairs.sets,
        loss,
        device,
        examples=config.train.images,
    )
    for name, image in validation.examples.items():
        run.log_image(state.step, f"examples/{name}", image)
    score = validation.scores["mean"]["loss"]
    _check_finite(state.step, "validation loss", score)
    save_weights(config.run / "weights-last.safetensors", network.state_dict(), {"genotype": genotype.name})
    if score < state.best_loss:
        state.best_loss, state.best_step = score, state.step
        keep_best(config, genotype, network, pairs, state.step, validation.scores)
    return validation.scores


def _check_finite(step: int, name: str, value: float) -> None:
    if not math.isfinite(value):
        raise UserError(
            f"step {step}: the {name} is not finite: {value}; lower train.learning_rate or train.clip and start anew"
            " with --overwrite"
        )


def _captured(state: _State) -> dict[str, Any]:
    return {
        "step": state.step,
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "best_loss": state.best_loss,
        "best_step": state.best_step,
        "rng": capture_rng(),
    }


def _restore(state: _State, saved: dict[str, Any], run: Path) -> None:
    with restoring(run):
        state.network.load_state_dict(saved["network"])
        state.average.load_state_dict(saved["average"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.scaler.load_state_dict(saved["scaler"])
        state.best_loss, state.best_step = saved["best_loss"], saved["best_step"]
        state.step = saved["step"]
        restore_rng(saved["rng"])
