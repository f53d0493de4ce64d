"""The task network whose loss scores the architecture, while it learns its task on the fused images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..data import PairBatch
from ..downstream import TaskNetwork
from ..downstream.task_network import parameter_groups
from ..runtime.checkpoint import load_optimizer


class Scorer:
    """A task network in training, with its optimiser.

    Its training starts in the warm-up of a search, so that it does not score the first steps of the architecture by
    noise.

    Args:
        weight_decay: Decoupled weight decay of the kernels of the task network.

    Attributes:
        parameters: Parameters of the network that are trained.
    """

    def __init__(self, network: TaskNetwork, *, learning_rate: float, weight_decay: float) -> None:
        self.network = network.train()
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._learning_rate = learning_rate
        self._optimizer = torch.optim.AdamW(parameter_groups(network, weight_decay), lr=learning_rate)

    def loss(self, fused: Tensor, batch: PairBatch) -> Tensor:
        """Return the loss of fused images (N, 1, H, W), clipped to [0, 1], by the labels of their batch: a scalar."""
        return self.network.loss(fused.clamp(0, 1), batch)

    def step(self, part: float) -> None:
        """Update the parameters, at a fraction of the largest learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = part * self._learning_rate
        self._optimizer.step()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Keep the network in evaluation mode until the block ends."""
        self.network.eval()
        try:
            yield
        finally:
            self.network.train()

    def buffers(self) -> Iterator[Tensor]:
        """Return the running statistics of the network."""
        return self.network.buffers()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the steps change."""
        return {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        load_optimizer(self._optimizer, state["optimizer"])
