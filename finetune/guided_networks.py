"""The two networks of a finetuning, which are trained, averaged and kept together."""

from torch import nn

from ..downstream import TaskNetwork


class Networks(nn.Module):
    """A fusion network, and the network that does a task on its images.

    Args:
        network: The fusion network.
        task: The task network.
    """

    def __init__(self, network: nn.Module, task: TaskNetwork) -> None:
        super().__init__()
        self.network = network
        self.task = task
