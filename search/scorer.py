"""The task network that scores the architecture, and learns its task on the fused images meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..data import PairBatch
from ..downstream import build_task_network, start_from
from ..downstream.downstream_section import DownstreamSection
from ..runtime.distribution import Ranks


class Scorer:
    """A task network in training, with its optimiser.

    It starts in the warm-up of a search, so that the first steps of the architecture are not scored by noise.

    Args:
        section: which network, and how it learns.
        classes: names of the classes in the labels.
        device: where it goes.

    Attributes:
        network: the task network, in training mode.
        parameters: its parameters that are trained.
        provenance: what a genotype says of it.

    Raises:
        UserError: there is no such network, or it is for another task.
    """

    def __init__(self, section: DownstreamSection, classes: Sequence[str], device: torch.device) -> None:
        network = build_task_network(section.kind, section.network, classes, section.width)
        if section.init is not None:
            start_from(network, section.init)
        self.provenance = section.provenance(classes)
        self.network = network.to(device).train()
        self.parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._learning_rate = section.learning_rate
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": section.weight_decay},
                {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=section.learning_rate,
        )

    def loss(self, fused: Tensor, batch: PairBatch) -> Tensor:
        """Score fused images (N, 1, H, W), which are clipped to [0, 1], by the labels of their batch: a scalar."""
        return self.network.loss(fused.clamp(0, 1), batch)

    def step(self, part: float) -> None:
        """Move the parameters by their gradients, at a part of the section's learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = part * self._learning_rate
        self._optimizer.step()

    def join_statistics(self, ranks: Ranks) -> None:
        """Give the network in every process the mean of its running statistics in all of them.

        In a pass each process normalises by its own part of the batch: the losses of these networks are divided by the
        objects in a part, so that they are no mean over a joined batch anyway.
        """
        statistics = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        with torch.no_grad():
            for buffer, mean in zip(statistics, ranks.average(statistics), strict=True):
                buffer.copy_(mean)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Keep the network in evaluation mode for a while."""
        self.network.eval()
        try:
            yield
        finally:
            self.network.train()

    def buffers(self) -> Iterator[Tensor]:
        """Return the running statistics of the network."""
        return self.network.buffers()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to go on as if never stopped."""
        return {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
