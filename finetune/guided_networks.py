"""The two networks of a finetuning, which are trained, averaged and kept together."""

from torch import nn

from ..downstream import TaskNetwork


class Networks(nn.Module):
    """A fusion network, and the network that does a downstream task on its images.

    Args:
        network: The fusion network.
        task: The task network; None where the fusion serves no downstream task.
    """

    def __init__(self, network: nn.Module, task: TaskNetwork | None) -> None:
        super().__init__()
        self.network = network
        self.task = task
