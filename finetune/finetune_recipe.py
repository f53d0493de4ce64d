"""The finetuning, from a fusion network and labelled pairs to one that serves a task: setup, the steps, conclusion."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..bilevel import NonFiniteError
from ..data import LabelledBatch
from ..downstream import GuidingDetectors, TaskNetwork, build_task_network, start_from
from ..downstream.task_network import average_statistics, parameter_groups
from ..genotypes import Genotype, load_genotype
from ..objectives import FusionLoss
from ..operators import build_network
from ..operators.shipped import WEIGHTS_FILE, find_network
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
from ..runtime.seeds import derive_seed, seed_everything
from ..runtime.weights import load_into
from .finetune_conclusion import Finetuning, conclude, keep_best
from .finetune_config import DataSection, FinetuneConfig
from .finetune_pairs import TaskPairs, open_task_pairs
from .guided_networks import Networks
from .multiplier import excess
from .strategies import SOURCES, DetFusion, Frozen, Joint, Lagrangian, LearnedLoss, Row, Strategy
from .task_validation import PRIMARY, Validation, validate

HARMLESS = ("run", "data.workers", "data.cache_megabytes", "train.checkpoint_every")  # may differ on resuming
IMAGES = ("fused", *SOURCES)


def finetune(config: FinetuneConfig, *, resume: bool = False, overwrite: bool = False) -> Finetuning:
    """Adapt a fusion network to what its images are for, train the task's network with it, and write the run folder.

    The weights that are validated and kept are moving averages of the trained ones. The best are those with the
    highest AP50 or mIoU on the validation pairs; of "lagrangian" those that also keep the promise there, or where none
    does, those that come closest to it.

    Where `torchrun` started several processes, each has its part of every batch. All have the same weights after each
    step, by the mean of their gradients; that is the gradient of the whole batch but for the task network, whose loss
    is divided by the objects of a part, and which normalises by the statistics of a part.

    Args:
        config: what to adapt, to which task, on what and how; `config.run` is the folder.
        resume: go on from the run's checkpoint, to the bit.
        overwrite: replace the run that is in the folder.

    Returns:
        The scores of the best weights, and how the fusion loss changed.

    Raises:
        UserError: the config, the data, the device or the run folder cannot be used, or a loss became non-finite.
    """
    keep_freed_memory()
    with open_ranks() as ranks:
        device = select_device(config.device, ranks.local)
        loss = _loss(config)
        _check_parts(config.data, ranks)
        torch.manual_seed(derive_seed(config.seed, "fusion network"))  # which may start with fresh weights
        genotype, start = _fusion_network(config, ranks)
        folder = None if config.guidance.images in IMAGES else Path(config.guidance.images).expanduser()
        pairs = open_task_pairs(config.data, config.task.labels, config.seed, folder, ranks)
        seed_everything(config.seed)
        state = _setup(config, genotype, start, pairs, loss, device, ranks)
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
            if run.resumes:
                _restore(state, run.load_checkpoint(), run.path)
            else:
                if ranks.count > 1:  # each may have read other initial weights
                    _restore(state, ranks.from_leader(lambda: _captured(state)), run.path)
                state.reference = ranks.from_leader(lambda: _validate(config, state, loss, pairs).scores["loss"])
            run.start("finetuning", state.steps, state.step)
            _fit(config, state, genotype, loss, pairs, run)
            if config.guidance.strategy == "lagrangian" and not state.best[0]:
                run.print(
                    f"warning: no validation kept the promise; the weights of step {state.best_step} come closest."
                    " Raise guidance.multiplier_rate or guidance.tolerance, or lower train.learning_rate"
                )
            # What was best is known to the first process alone, which validates.
            return ranks.from_leader(
                lambda: conclude(config, genotype, state.averaged, state.strategy, loss, pairs, state.summary())
            )


def _check_parts(data: DataSection, ranks: Ranks) -> None:
    """Check that a process has its part of a batch, and in it enough for a task network to normalise by."""
    ranks.check_even("data.batch_size", data.batch_size)
    if data.batch_size == ranks.count and data.crop <= 32:
        raise UserError(
            f"data.batch_size = {data.batch_size} leaves each of {ranks.count} ranks one crop of {data.crop} pixels,"
            " too little for a task network to learn; set data.batch_size to"
            f" {2 * ranks.count}, or data.crop above 32"
        )


def _loss(config: FinetuneConfig) -> FusionLoss:
    loss = config.loss.loss(config.data.crop)
    if config.guidance.strategy == "learned_loss" and not (loss.intensity or loss.ssim):
        raise UserError(
            "learned_loss learns the weights of the sources in loss.intensity and loss.ssim; set one of them above 0"
        )
    return loss


def _fusion_network(config: FinetuneConfig, ranks: Ranks) -> tuple[Genotype, nn.Module]:
    """Build the fusion network, with the weights that it starts from."""
    if (config.init is None) == (config.genotype is None):
        raise UserError(
            "give either init, a trained network to start from, or genotype, one to start with fresh weights;"
            " the other is null"
        )
    folder = None if config.init is None else find_network(config.init)
    genotype = ranks.from_leader(lambda: load_genotype(folder or config.genotype or ""))
    if genotype.network == "refine":
        raise UserError(f"{genotype.name} is a refine network; finetuning is for fusion networks")
    network = build_network(genotype)
    if folder is not None:
        load_into(network, folder / WEIGHTS_FILE)
    return genotype, network


@dataclass
class _State:
    """Everything that a finetuning changes: what a checkpoint holds, beside the random generators."""

    networks: Networks
    strategy: Strategy
    average: AveragedModel  # of the networks
    optimizer: torch.optim.Optimizer
    steps: int  # in all
    step: int = 0
    reference: float = math.nan  # fusion loss on the validation pairs at the start
    best: tuple[bool, float] = (False, -math.inf)  # whether the promise was kept, and the score
    best_step: int = -1

    @property
    def averaged(self) -> Networks:
        """The averages of the networks' weights."""
        assert isinstance(self.average.module, Networks)
        return self.average.module

    def summary(self) -> dict[str, Any]:
        """Return what the conclusion tells of the course."""
        return {"best_step": self.best_step, "fusion_loss_before": self.reference, "promise_kept": self.best[0]}


def _setup(
    config: FinetuneConfig,
    genotype: Genotype,
    network: nn.Module,
    pairs: TaskPairs,
    loss: FusionLoss,
    device: torch.device,
    ranks: Ranks,
) -> _State:
    settings, section = config.train, config.task
    task = build_task_network(section.kind, section.network, pairs.source.classes, section.width, section.init)
    networks = Networks(network, task).to(device)
    # As at inference: what the constraint holds for is what the user gets, and crops do not shift the statistics.
    network.eval()
    strategy = _strategy(config, network, task, loss, device, ranks)
    own_rate = config.guidance.loss_learning_rate if isinstance(strategy, LearnedLoss) else section.learning_rate
    groups = [
        {
            "params": list(network.parameters()),
            "weight_decay": settings.weight_decay,
            "highest": settings.learning_rate,
        },
        *(group | {"highest": section.learning_rate} for group in parameter_groups(task, section.weight_decay)),
        {"params": list(strategy.own.parameters()), "weight_decay": 0.0, "highest": own_rate},
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], fused=device.type in ("cpu", "cuda"))
    return _State(
        networks,
        strategy,
        moving_average(networks, settings.ema),
        optimizer,
        strategy.preparation + settings.steps,
    )


def _strategy(
    config: FinetuneConfig,
    network: nn.Module,
    task: TaskNetwork,
    loss: FusionLoss,
    device: torch.device,
    ranks: Ranks,
) -> Strategy:
    guidance = config.guidance
    if guidance.strategy == "frozen":
        # The images of a folder stand in the place of both sources.
        return Frozen(network, task, loss, guidance.images if guidance.images in IMAGES else "first", ranks)
    if guidance.strategy == "joint":
        return Joint(network, task, loss, guidance.weight)
    if guidance.strategy == "lagrangian":
        return Lagrangian(
            network,
            task,
            loss,
            reference=copy.deepcopy(network).requires_grad_(False),
            tolerance=guidance.tolerance,
            rate=guidance.multiplier_rate,
            multiplier=guidance.multiplier,
            ranks=ranks,
        )
    if guidance.strategy == "learned_loss":
        return LearnedLoss(network, task, loss, guidance.estimator, guidance.estimator_options, ranks)
    if config.task.kind != "detection":
        raise UserError("guidance.strategy = detfusion is guided by detectors; set task.kind=detection")
    detectors = GuidingDetectors(task.classes, config.task.width).to(device)
    if config.task.init is not None:
        start_from(detectors.first, config.task.init)
        start_from(detectors.second, config.task.init)
    return DetFusion(
        network,
        task,
        loss,
        detectors=detectors,
        weight=guidance.weight,
        content=guidance.content,
        preparation=guidance.detector_steps,
    )


def _fit(
    config: FinetuneConfig,
    state: _State,
    genotype: Genotype,
    loss: FusionLoss,
    pairs: TaskPairs,
    run: LedRun,
) -> None:
    """Run the steps that are left, with validations and checkpoints now and then and at the end."""
    settings, workers, ranks = config.train, config.data.workers, run.ranks
    device = next(state.networks.parameters()).device
    task_batches = pairs.batches("task", state.step, state.steps, workers, device)
    fusion_batches = pairs.batches("fusion", state.step, state.steps, workers, device)
    validated = ""
    try:
        with deferred_interrupt() as interrupted:
            while state.step < state.steps:
                batch = next(task_batches)
                fusion_batch = next(fusion_batches) if config.guidance.strategy == "learned_loss" else batch
                row = _step(config, state, batch, fusion_batch, ranks)
                last, done = state.step == state.steps - 1, state.step + 1 - state.strategy.preparation
                if ranks.leads and done > 0 and (done % settings.validate_every == 0 or last):
                    validation = _validate(config, state, loss, pairs)
                    row["validation"] = validation.scores
                    for name, image in validation.examples.items():
                        run.log_image(state.step, f"examples/{name}", image)
                    _keep(config, state, genotype, pairs, validation)
                    primary = PRIMARY[config.task.kind]
                    validated = f", {primary} {validation.scores[primary]:.3f}"
                run.log(state.step, row)
                state.step += 1
                run.advance(f"{_status(row)}{validated}")
                stop = ranks.agree(interrupted())
                if state.step % settings.checkpoint_every == 0 or last or stop:
                    run.save_checkpoint(_captured(state))
                if stop:
                    raise StoppedError(f"stopped before step {state.step}; go on with --resume")
    except NonFiniteError as error:
        raise UserError(
            f"step {state.step}: {error}; lower train.learning_rate, task.learning_rate or train.clip and start anew"
            " with --overwrite"
        ) from None


def _step(
    config: FinetuneConfig, state: _State, batch: LabelledBatch, fusion_batch: LabelledBatch, ranks: Ranks
) -> Row:
    """Update whatever the strategy gave gradients; return what to log."""
    settings, strategy = config.train, state.strategy
    preparing = state.step < strategy.preparation
    step = state.step if preparing else state.step - strategy.preparation
    factor = warmed_cosine(1.0, step, strategy.preparation if preparing else settings.steps, settings.warmup)
    for group in state.optimizer.param_groups:
        group["lr"] = group["highest"] * factor
    # A function of the step alone: estimators rewind the generator, and dropout would repeat itself.
    torch.manual_seed(derive_seed(config.seed, "forward", state.step))
    state.networks.task.train()
    state.optimizer.zero_grad()
    row = _join(state, strategy.backward(state.step, settings.learning_rate * factor, batch, fusion_batch), ranks)
    norms = {
        name: nn.utils.clip_grad_norm_(module.parameters(), settings.clip).item()
        for name, module in (*state.networks.named_children(), ("own", strategy.own))
        if any(parameter.grad is not None for parameter in module.parameters())
    }
    for name, value in (*row.items(), *((f"gradient of the {name}", norm) for name, norm in norms.items())):
        if not math.isfinite(value):
            raise NonFiniteError(f"the {name.replace('_', ' ')} is not finite: {value}")
    state.optimizer.step()
    if not preparing:
        state.average.update_parameters(state.networks)
    return row | {"gradient_norm": norms}


def _join(state: _State, row: Row, ranks: Ranks) -> Row:
    """Average gradients, running statistics and what is logged over the processes."""
    if ranks.count == 1:
        return row
    for module in (state.networks.task, state.strategy.own):
        average_statistics(module, ranks)
    values = next(state.networks.parameters()).new_tensor(list(row.values()))
    (values,) = average_gradients(state.optimizer, [values], ranks)
    return dict(zip(row, values.tolist(), strict=True))


def _validate(config: FinetuneConfig, state: _State, loss: FusionLoss, pairs: TaskPairs) -> Validation:
    """Score the averaged weights."""
    networks = state.averaged
    return validate(
        lambda first, second: state.strategy.fuse(networks.network, first, second),
        networks.task.eval(),
        pairs,
        loss,
        next(networks.parameters()).device,
        examples=config.train.images,
    )


def _keep(config: FinetuneConfig, state: _State, genotype: Genotype, pairs: TaskPairs, validation: Validation) -> None:
    """Keep the averaged weights if they are the best so far."""
    scores = validation.scores
    if not math.isfinite(scores["loss"]):
        raise NonFiniteError(f"the validation loss is not finite: {scores['loss']}")
    above = excess(scores["loss"], state.reference)
    kept = config.guidance.strategy != "lagrangian" or above <= config.guidance.tolerance
    score = scores[PRIMARY[config.task.kind]] if kept else -above
    if math.isnan(score):
        raise UserError("the validation pairs have no labels to be scored by; give others in val.txt")
    if (kept, score) > state.best:
        state.best, state.best_step = (kept, score), state.step
        keep_best(config, genotype, state.averaged, state.strategy, pairs, state.summary(), scores)


def _status(row: Row) -> str:
    names = ("detector_loss", "task_loss", "fusion_loss", "multiplier")
    return ", ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in names if name in row)


def _captured(state: _State) -> dict[str, Any]:
    return {
        "step": state.step,
        "networks": state.networks.state_dict(),
        "own": state.strategy.own.state_dict(),
        "strategy": state.strategy.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "reference": state.reference,
        "best": state.best,
        "best_step": state.best_step,
        "rng": capture_rng(),
    }


def _restore(state: _State, saved: dict[str, Any], run: Path) -> None:
    with restoring(run):
        state.networks.load_state_dict(saved["networks"])
        state.strategy.own.load_state_dict(saved["own"])
        state.strategy.load_state_dict(saved["strategy"])
        state.average.load_state_dict(saved["average"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.reference, state.best, state.best_step = saved["reference"], saved["best"], saved["best_step"]
        state.step = saved["step"]
        restore_rng(saved["rng"])
