"""Validation losses, and the recalibration of batch normalisation before them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data import PairBatch
from ..training.first_stage import FirstStage, run_stages


def recalibrate(network: nn.Module, batches: Iterable[PairBatch], first_stage: FirstStage | None = None) -> None:
    """Set the running statistics of every batch normalisation to the average over some batches.

    Estimators do not change buffers, and a supernet's statistics belong to a mixture that no longer exists, so a
    derived network measures its own.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    training = network.training
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    with torch.no_grad():
        for batch in batches:
            run_stages(network, first_stage, batch.first, batch.second)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(training)


def mean_losses(
    fuse: Callable[[PairBatch], Tensor],
    batches: Iterable[PairBatch],
    losses: Mapping[str, Callable[[Tensor, Any], Tensor]],
) -> dict[str, float]:
    """Average losses over batches without gradients.

    Args:
        fuse: Function that fuses a batch to (N, 1, H, W) images.
        losses: Functions that are called as ``loss(fused, batch)``, by name.
    """
    rows = []
    with torch.no_grad():
        for batch in batches:
            fused = fuse(batch)
            rows.append(torch.stack([loss(fused, batch) for loss in losses.values()]))
    return dict(zip(losses, torch.stack(rows).double().mean(0).tolist(), strict=True))
