"""The finetuning, from a fusion network and labelled pairs to one that serves a task: setup, step, validation, end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..data import PairBatch, RunPairs
from ..downstream import build_task_network, keep_guiding_detectors, keep_task_network, load_task_weights
from ..downstream.task_network import average_statistics, parameter_groups
from ..drawing.example_sheet import draw_examples
from ..genotypes import Genotype, load_genotype, save_genotype
from ..objectives import FusionLoss, training_loss
from ..objectives.loss_section import fusion_loss
from ..operators import build_network, count_parameters, save_network_folder
from ..operators.network_folders import find_network
from ..runtime.averaged_gradients import average_gradients
from ..runtime.averaging import moving_average
from ..runtime.distribution import Ranks
from ..runtime.errors import UserError, check_finite
from ..runtime.history import read_history
from ..runtime.loop import Loop, Row, Scores, open_loop
from ..runtime.run_files import GENOTYPE_FILE, HISTORY_FILE, PICTURES_FOLDER
from ..runtime.schedules import warmed_cosine
from ..runtime.seeds import derive_seed, seed_everything
from ..runtime.weights import load_into
from .build_strategy import IMAGES, build_strategy
from .finetune_config import FinetuneConfig
from .finetune_curves import draw_finetuning
from .finetune_pairs import with_fused_images
from .guided_networks import Networks
from .strategies import DetFusion, Strategy
from .task_validation import PRIMARY, SMALLEST, Validation, rank_of, validate


class Finetuning(NamedTuple):
    """The result of a finetuning.

    Attributes:
        genotype: The fusion network with its provenance, as in `genotype.yaml`.
        best_step: The step after which the networks had their best weights, from 0.
        scores: Scores of the best weights on the validation pairs, as in `Validation`.
        fusion_loss_before: The fusion loss on the validation pairs of the network at the start.
        promise_kept: Whether the fusion loss stayed within the tolerance of "lagrangian".
    """

    genotype: Genotype
    best_step: int
    scores: Scores
    fusion_loss_before: float
    promise_kept: bool


@dataclass
class _State:
    """Everything that a step or a validation changes."""

    networks: Networks
    strategy: Strategy
    average: AveragedModel  # of the networks
    optimizer: torch.optim.Optimizer
    step: int = 0
    reference: float = math.nan  # fusion loss on the validation pairs at the start
    best: tuple[bool, float] = (False, -math.inf)  # whether the promise was kept, and the score
    best_step: int = -1

    @property
    def averaged(self) -> Networks:
        """The averages of the networks' weights."""
        assert isinstance(self.average.module, Networks)
        return self.average.module


class _Parts(NamedTuple):
    """What a finetuning works with and does not change."""

    genotype: Genotype
    loss: FusionLoss
    pairs: RunPairs


def finetune(config: FinetuneConfig, *, resume: bool = False, overwrite: bool = False) -> Finetuning:
    """Adapt a fusion network to what its images are for, train the task's network with it, and write the run folder.

    Moving averages of the trained weights are what is validated and kept. The best ones have the highest AP50 or mIoU
    on the validation pairs; under "lagrangian" they also keep the promise there, or come closest to it if none does.

    Where `torchrun` started several processes, each computes a part of every batch and all take the mean of the
    gradients. It equals the gradient of the whole batch except for the task network, whose loss is divided by the
    objects of a part and which normalises by the statistics of a part.

    Args:
        config: The networks, the data and the guidance; `config.run` is the run folder.
        resume: Whether to go on from the run's checkpoint. The result is the same to the bit.
        overwrite: Whether to replace the run in the folder.

    Returns:
        The scores of the best weights, and how the fusion loss changed.

    Raises:
        UserError: If the config, the data, the device or the run folder cannot be used, or a loss is not finite.
    """
    settings, data = config.train, config.data
    with open_loop(config, resume=resume, overwrite=overwrite) as loop:
        ranks, device = loop.ranks, loop.device
        _check_parts(config, ranks)
        torch.manual_seed(derive_seed(config.seed, "fusion network"))  # which may start with fresh weights
        genotype, start = _fusion_network(config, ranks)
        loss = loss_of(config, genotype.task)
        pairs = open_run_pairs(config, genotype.task)
        seed_everything(config.seed)
        state = _setup(config, start, pairs, loss, loop)
        parts = _Parts(genotype, loss, pairs)
        loop.open_folder(pairs=len(pairs.source), fingerprint=pairs.fingerprint, harmless=["train.checkpoint_every"])
        loop.start(state)
        if not loop.resumes:
            state.reference = ranks.from_leader(lambda: _score(config, state, parts).scores["mean"]["loss"])
        preparation = state.strategy.preparation
        steps = preparation + settings.steps
        labelled = pairs.source.labels is not None
        task_batches, fusion_batches = (
            pairs.batches(
                name,
                state.step,
                steps,
                seed=config.seed,
                scale=data.scale if labelled else None,
                upright=labelled,
                device=device,
                ranks=ranks,
                **data.crops,
            )
            for name in ("task", "fusion")
        )

        def step() -> Row:
            batch = next(task_batches)
            fusion_batch = next(fusion_batches) if config.strategy == "learned_loss" else batch
            return _step(config, state, batch, fusion_batch, ranks)

        loop.run(
            state,
            step=step,
            validate=partial(_validate, config, state, parts, loop),
            remedy="train.learning_rate or train.clip" + (", or downstream.learning_rate" if config.downstream else ""),
            status=_status,
            validate_after=preparation + settings.validate_every,
            **config.rhythm | {"steps": steps},
        )
        if config.strategy == "lagrangian" and not state.best[0]:
            loop.print(
                f"warning: no validation kept the promise; the weights of step {state.best_step} come closest."
                " Raise guidance.multiplier_rate or guidance.tolerance, or lower train.learning_rate"
            )
        # The first process alone validates and knows the best step.
        return ranks.from_leader(lambda: _conclude(config, state, parts))


def _check_parts(config: FinetuneConfig, ranks: Ranks) -> None:
    """Check that a process has its part of a batch, and in it enough for a task network to normalise by."""
    data = config.data
    ranks.check_even("data.batch_size", data.batch_size)
    if config.downstream is not None and data.batch_size == ranks.count and data.crop <= 32:
        raise UserError(
            f"data.batch_size = {data.batch_size} leaves each of {ranks.count} ranks one crop of {data.crop} pixels,"
            " too little for a task network to learn; set data.batch_size to"
            f" {2 * ranks.count}, or data.crop above 32"
        )


def open_run_pairs(config: FinetuneConfig, task: str, roots: Sequence[Path | None] | None = None) -> RunPairs:
    """Open the pairs of a finetuning, with labels and a method's fused images if the config asks for them.

    Args:
        config: The config of the run.
        task: The fusion task.
        roots: Folders of data sets in the place of the config's own.

    Raises:
        UserError: If a folder or a file in it cannot be used.
    """
    data, images = config.data, config.guidance.images
    pairs = data.open_pairs(
        task,
        config.sources,
        config.seed,
        roots=roots,
        # Labelled pairs are zoomed, so that they may be smaller than a crop.
        minimum_size=max(SMALLEST, 0 if config.downstream else data.crop),
        labels=None if config.downstream is None else config.downstream.labels,
        validation_pairs=data.validation_pairs,
        shares=data.shares if roots is None else None,
    )
    return pairs if images in IMAGES else with_fused_images(pairs, Path(images).expanduser())


def loss_of(config: FinetuneConfig, task: str) -> FusionLoss:
    """Make the fusion loss of a finetuning.

    Args:
        config: The config of the run.
        task: The fusion task, whose loss counts where the config has none.

    Raises:
        UserError: If the loss does not fit the crops or the strategy.
    """
    loss = fusion_loss(config.loss, training_loss(task), config.data.crop)
    if config.strategy == "learned_loss" and not (loss.intensity or loss.ssim):
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
        load_into(network, folder)
    return config.for_task(genotype), network


def _setup(config: FinetuneConfig, network: nn.Module, pairs: RunPairs, loss: FusionLoss, loop: Loop) -> _State:
    settings, section = config.train, config.downstream
    task = None
    if section is not None:
        task = build_task_network(section.kind, section.network, pairs.source.classes, section.width, section.init)
    networks = Networks(network, task).to(loop.device)
    # As at inference: what the constraint holds for is what the user gets, and crops do not shift the statistics.
    network.eval()
    detectors = {} if section is None else section.model_dump(include={"width", "init"})
    strategy = build_strategy(
        network, task, loss, loop.ranks, **config.guidance.model_dump() | {"strategy": config.strategy}, **detectors
    )
    groups = [{"params": list(network.parameters()), "weight_decay": settings.weight_decay}]
    groups[0]["highest"] = settings.learning_rate
    if task is not None and section is not None:
        own_rate = section.learning_rate
        if config.strategy == "learned_loss":
            own_rate = config.guidance.loss_learning_rate
        groups += [group | {"highest": section.learning_rate} for group in parameter_groups(task, section.weight_decay)]
        groups += [{"params": list(strategy.own.parameters()), "weight_decay": 0.0, "highest": own_rate}]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, fused=loop.device.type in ("cpu", "cuda"))
    return _State(networks, strategy, moving_average(networks, settings.ema), optimizer)


def _step(config: FinetuneConfig, state: _State, batch: PairBatch, fusion_batch: PairBatch, ranks: Ranks) -> Row:
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
        state.networks.task.train()
    state.optimizer.zero_grad()
    row = _averaged(state, strategy.backward(state.step, settings.learning_rate * factor, batch, fusion_batch), ranks)
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


def _averaged(state: _State, row: Row, ranks: Ranks) -> Row:
    """Average gradients, running statistics and the row over the processes."""
    if ranks.count == 1:
        return row
    for module in (state.networks.task, state.strategy.own):
        if module is not None:
            average_statistics(module, ranks)
    values = next(state.networks.parameters()).new_tensor(list(row.values()))
    (values,) = average_gradients(state.optimizer, [values], ranks)
    return dict(zip(row, values.tolist(), strict=True))


def _score(config: FinetuneConfig, state: _State, parts: _Parts) -> Validation:
    """Score the averaged weights."""
    networks = state.averaged
    return validate(
        lambda first, second: state.strategy.fuse(networks.network, first, second),
        None if networks.task is None else networks.task.eval(),
        parts.pairs,
        parts.loss,
        next(networks.parameters()).device,
        examples=config.train.images,
    )


def _validate(config: FinetuneConfig, state: _State, parts: _Parts, loop: Loop) -> Scores | None:
    """Score the averaged weights, and keep them if they are the best so far."""
    if not loop.ranks.leads:
        return None
    validation = _score(config, state, parts)
    scores = validation.scores["mean"]
    for name, image in validation.examples.items():
        loop.log_image(state.step - 1, f"examples/{name}", image)
    check_finite({"validation loss": scores["loss"]})
    tolerance = config.guidance.tolerance if config.strategy == "lagrangian" else None
    primary = None if config.downstream is None else PRIMARY[config.downstream.kind]
    rank = rank_of(scores, primary, state.reference, tolerance)
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


def _conclude(config: FinetuneConfig, state: _State, parts: _Parts) -> Finetuning:
    """Score the best weights and draw; the genotype comes last."""
    networks = state.averaged
    load_into(networks.network, config.run)
    if networks.task is not None:
        load_task_weights(networks.task, config.run)
    validation = _score(config, state, parts)
    pictures = config.run / PICTURES_FOLDER
    draw_examples(validation.examples, pictures)
    history, tolerance = read_history(config.run / HISTORY_FILE), config.guidance.tolerance
    draw_finetuning(history, pictures, reference=state.reference, tolerance=tolerance)
    genotype = _described(config, state, parts, validation.scores)
    save_genotype(genotype, config.run / GENOTYPE_FILE)
    return Finetuning(genotype, state.best_step, validation.scores, state.reference, state.best[0])


def _described(config: FinetuneConfig, state: _State, parts: _Parts, scores: Scores) -> Genotype:
    guidance, section = config.guidance, config.downstream
    metrics = {
        part: {name: None if math.isnan(value) else value for name, value in row.items()}
        for part, row in scores.items()
    }
    return config.described(
        parts.genotype,
        data={"root": config.data.origin, **parts.pairs.counts},
        **({} if section is None else {"downstream": section.provenance(parts.pairs.source.classes)}),
        strategy=config.strategy,
        **({"images": guidance.images} if config.strategy == "frozen" else {}),
        **({"estimator": guidance.estimator} if config.strategy == "learned_loss" else {}),
        steps=config.train.steps,
        best_step=state.best_step,
        fusion_loss_before=state.reference,
        **({"promise_kept": state.best[0]} if config.strategy == "lagrangian" else {}),
        parameters=count_parameters(state.networks.network),
        metrics={"best": metrics},
        architecture=parts.genotype.architecture,
    )


def _status(row: Mapping[str, Any]) -> str:
    names = ("detector_loss", "task_loss", "fusion_loss", "multiplier")
    return ", ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in names if name in row)
