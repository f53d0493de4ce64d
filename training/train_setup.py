"""What a training starts with: the network and its first stage, the loss, the pairs, the averages and the optimiser."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..data import RunPairs
from ..genotypes import Genotype, load_genotype
from ..objectives import FusionLoss, training_loss
from ..objectives.loss_section import fusion_loss
from ..operators import build_network
from ..operators.training_memory import check_training_memory
from ..runtime.averaging import moving_average
from ..runtime.distribution import Ranks
from ..runtime.weights import load_into
from .first_stage import FirstStage, open_first_stage
from .train_config import TrainConfig
from .train_validation import SMALLEST


@dataclass
class TrainState:
    """Everything that a step or a validation of a training changes."""

    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # does nothing unless gradients are of half precision
    step: int = 0
    best_loss: float = math.inf
    best_step: int = -1


class TrainParts(NamedTuple):
    """What a training works with and does not change."""

    genotype: Genotype
    first_stage: FirstStage | None  # whose output a refine network refines
    loss: FusionLoss
    pairs: RunPairs


def open_parts(config: TrainConfig, device: torch.device, ranks: Ranks, resume: bool) -> TrainParts:
    """Read the network's genotype, its first stage and the pairs, and make the loss.

    Args:
        device: Where the network is trained.
        resume: Whether the run goes on from a checkpoint, if there is one; it then keeps its own first stage.

    Raises:
        UserError: If the genotype, the first stage, the loss or the pairs cannot be used, or the batches are too large.
    """
    genotype = ranks.from_leader(lambda: load_genotype(config.genotype))
    first_stage = open_first_stage(genotype, config.first_stage, run=config.run, resume=resume, ranks=ranks)
    genotype = config.for_task(genotype)
    data = config.data
    check_training_memory(genotype, crops=data.batch_size // ranks.count, crop=data.crop, device=device)
    loss = fusion_loss(config.loss, training_loss(genotype.task), config.data.crop)
    pairs = config.data.open_pairs(
        genotype.task,
        config.sources,
        config.seed,
        minimum_size=max(config.data.smallest_side, SMALLEST),
        validation_pairs=config.data.validation_pairs,
        shares=config.data.shares,
    )
    return TrainParts(genotype, first_stage, loss, pairs)


def set_up(config: TrainConfig, genotype: Genotype, device: torch.device) -> TrainState:
    """Build the network with its initial weights, their moving average and the optimiser.

    Raises:
        UserError: If the initial weights cannot be used.
    """
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
    half = fast_precision(settings.precision, device) is torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    return TrainState(network, moving_average(network, settings.ema), optimizer, scaler)


def fast_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Choose the type in which a device multiplies fastest: bfloat16, float16, or None for float32.

    Args:
        precision: One of "auto" and "float32", which is full precision everywhere.
    """
    if precision == "float32" or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
