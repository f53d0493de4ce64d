"""Building the strategy of a finetuning by its name."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..bilevel.options import Estimator
from ..downstream import GuidingDetectors, TaskNetwork, start_from
from ..objectives import FusionLoss
from ..runtime.distribution import Ranks
from .strategies import DetFusion, Frozen, FusionAlone, Joint, Lagrangian, LearnedLoss, Strategy
from .task_images import SOURCES

IMAGES = ("fused", *SOURCES)
"""Images of the task network under "frozen", beside the images of a folder."""


def build_strategy(
    network: nn.Module,
    task: TaskNetwork | None,
    loss: FusionLoss,
    ranks: Ranks,
    *,
    strategy: str,
    images: str,
    weight: float,
    multiplier: float,
    multiplier_rate: float,
    estimator: Estimator,
    estimator_options: Mapping[str, int | float],
    detector_steps: int,
    content: float,
    width: int = 24,
    init: str | None = None,
    coloured: str = "second",
    **others: Any,
) -> Strategy:
    """Build a strategy. Arguments that are not listed here are keys of the config section `guidance`.

    Args:
        task: Task network on the same device; None without a downstream task.
        init: Initial weights of the two detectors of "detfusion", see `start_from`; None for random ones.
        coloured: The source that has the colours, as in `task_images.shown`.
        **others: Keys of `guidance` that no strategy needs; ignored.
    """
    if task is None:
        return FusionAlone(network, loss)
    if strategy == "frozen":
        return Frozen(network, task, loss, images, coloured=coloured, ranks=ranks)
    if strategy == "joint":
        return Joint(network, task, loss, weight)
    if strategy == "lagrangian":
        return Lagrangian(
            network,
            task,
            loss,
            reference=copy.deepcopy(network).requires_grad_(False),
            rate=multiplier_rate,
            multiplier=multiplier,
            ranks=ranks,
        )
    if strategy == "learned_loss":
        return LearnedLoss(network, task, loss, estimator, estimator_options, ranks)
    detectors = GuidingDetectors(task.classes, width).to(next(network.parameters()).device)
    if init is not None:
        start_from(detectors.first, init)
        start_from(detectors.second, init)
    return DetFusion(
        network, task, loss, detectors=detectors, weight=weight, content=content, preparation=detector_steps
    )
