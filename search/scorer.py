"""The task network that scores the architecture, and learns its task on the fused images meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..data import PairBatch
from ..downstream import TaskNetwork
from ..downstream.task_network import parameter_groups


class Scorer:
    """A task network in training, with its optimiser.

    It starts in the warm-up of a search, so that the first steps of the architecture are not scored by noise.

    Args:
        network: The task network, on its device.
        learning_rate: The highest of the task network.
        weight_decay: Of the kernels of the task network.

    Attributes:
        network: The task network, in training mode.
        parameters: Its parameters that are trained.
    """

    def __init__(self, network: TaskNetwork, *, learning_rate: float, weight_decay: float) -> None:
        self.network = network.train()
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._learning_rate = learning_rate
        self._optimizer = torch.optim.AdamW(parameter_groups(network, weight_decay), lr=learning_rate)

    def loss(self, fused: Tensor, batch: PairBatch) -> Tensor:
        """Score fused images (N, 1, H, W), which are clipped to [0, 1], by the labels of their batch: a scalar."""
        return self.network.loss(fused.clamp(0, 1), batch)

    def step(self, part: float) -> None:
        """Update the parameters, at a part of the highest learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = part * self._learning_rate
        self._optimizer.step()

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
