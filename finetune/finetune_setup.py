"""What a finetuning starts with: the pairs and the loss, the networks, the strategy and the optimiser."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..data import RunPairs
from ..downstream import build_task_network
from ..downstream.task_network import parameter_groups
from ..genotypes import Genotype, load_genotype
from ..objectives import FusionLoss, training_loss
from ..objectives.loss_section import fusion_loss
from ..operators import build_network
from ..operators.network_folders import find_network
from ..operators.training_memory import check_training_memory
from ..runtime.averaging import moving_average
from ..runtime.distribution import Ranks
from ..runtime.errors import UserError
from ..runtime.seeds import derive_seed
from ..runtime.weights import load_into
from .build_strategy import IMAGES, build_strategy
from .finetune_config import FinetuneConfig
from .finetune_pairs import with_fused_images
from .guided_networks import Networks
from .strategies import Strategy
from .task_images import channels_of
from .task_validation import SMALLEST


@dataclass
class FinetuneState:
    """Everything that a step or a validation changes."""

    networks: Networks
    strategy: Strategy
    average: AveragedModel  # of the networks
    optimizer: torch.optim.Optimizer
    step: int = 0
    reference: float = math.nan  # fusion loss on the validation pairs at the start
    trivial: dict[str, float] = field(default_factory=dict)  # that of methods without a network, under "lagrangian"
    best: tuple[bool, float] = (False, -math.inf)  # whether the promise was kept, and the score
    best_step: int = -1

    @property
    def averaged(self) -> Networks:
        """The averages of the networks' weights."""
        assert isinstance(self.average.module, Networks)
        return self.average.module


class FinetuneParts(NamedTuple):
    """What a finetuning works with and does not change.

    Attributes:
        colour: The source that has the colours, where the task network sees them; None for luma.
    """

    genotype: Genotype
    loss: FusionLoss
    pairs: RunPairs
    colour: str | None


def open_parts(config: FinetuneConfig, device: torch.device, ranks: Ranks) -> tuple[FinetuneParts, nn.Module]:
    """Read the fusion network and the pairs, and make the loss.

    Args:
        device: Where the network is trained.

    Returns:
        The parts, and the fusion network with its initial weights.

    Raises:
        UserError: If the network, the loss or the pairs cannot be used, or a process has too small a part of a batch.
    """
    data = config.data
    ranks.check_even("data.batch_size", data.batch_size)
    if config.downstream is not None and data.batch_size == ranks.count and data.crop <= 32:
        raise UserError(
            f"data.batch_size = {data.batch_size} leaves each of {ranks.count} ranks one crop of {data.crop} pixels,"
            " too little for a task network to learn; set data.batch_size to"
            f" {2 * ranks.count}, or data.crop above 32"
        )
    torch.manual_seed(derive_seed(config.seed, "fusion network"))  # which may start with fresh weights
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
    genotype = config.for_task(genotype)
    check_training_memory(genotype, crops=data.batch_size // ranks.count, crop=data.crop, device=device)
    loss = loss_of(config, genotype.task)
    colour = genotype.colour_source if config.downstream is not None and config.downstream.colour else None
    return FinetuneParts(genotype, loss, open_run_pairs(config, genotype.task), colour), network


def open_run_pairs(config: FinetuneConfig, task: str, roots: Sequence[Path | None] | None = None) -> RunPairs:
    """Open the pairs of a finetuning, with labels and a method's fused images if the config asks for them.

    Args:
        roots: Folders of data sets, which replace those of the config.

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
        minimum_size=max(SMALLEST, 0 if config.downstream else data.smallest_side),
        labels=None if config.downstream is None else config.downstream.labels,
        validation_pairs=data.validation_pairs,
        shares=data.shares if roots is None else None,
    )
    return pairs if images in IMAGES else with_fused_images(pairs, Path(images).expanduser())


def loss_of(config: FinetuneConfig, task: str) -> FusionLoss:
    """Make the fusion loss of a finetuning: that of the config, or else that of the task.

    Raises:
        UserError: If the loss does not fit the crops.
    """
    loss = fusion_loss(config.loss, training_loss(task), config.data.crop)
    if config.strategy == "learned_loss" and not (loss.intensity or loss.ssim):
        return replace(loss, intensity=1.0)  # the terms in which the strategy learns the weights of the sources
    return loss


def set_up(
    config: FinetuneConfig, network: nn.Module, parts: FinetuneParts, device: torch.device, ranks: Ranks
) -> FinetuneState:
    """Build the task network, the strategy, the moving averages and the optimiser.

    Args:
        network: The fusion network with its initial weights.
        parts: The loss, and the pairs, whose classes the task network learns.

    Raises:
        UserError: If the initial weights of the task network cannot be used, or a frozen one lacks classes.
    """
    settings, section = config.train, config.downstream
    task = None
    if section is not None:
        classes = parts.pairs.source.classes
        channels = channels_of(config.guidance.images, colour=section.colour)
        task = build_task_network(section.kind, section.network, classes, section.width, section.init, channels)
        if section.frozen and section.init is None and task.fresh_classes:
            raise UserError(
                f"the frozen network {section.network} does not know the classes {', '.join(task.fresh_classes)}; give"
                " data with its classes, downstream.init, or let it learn (downstream.frozen=false)"
            )
        task.requires_grad_(not section.frozen)
    networks = Networks(network, task).to(device)
    # As at inference: what the constraint holds for is what the user gets, and crops do not shift the statistics.
    network.eval()
    guidance = config.guidance.model_dump() | {"strategy": config.strategy, "coloured": parts.genotype.colour_source}
    detectors = {} if section is None else section.model_dump(include={"width", "init"})
    strategy = build_strategy(network, task, parts.loss, ranks, **guidance, **detectors)
    groups = [{"params": list(network.parameters()), "weight_decay": settings.weight_decay}]
    groups[0]["highest"] = settings.learning_rate
    if task is not None and section is not None:
        own_rate = section.learning_rate
        if config.strategy == "learned_loss":
            own_rate = config.guidance.loss_learning_rate
        groups += [group | {"highest": section.learning_rate} for group in parameter_groups(task, section.weight_decay)]
        groups += [{"params": list(strategy.own.parameters()), "weight_decay": 0.0, "highest": own_rate}]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"))
    return FinetuneState(networks, strategy, moving_average(networks, settings.ema), optimizer)
