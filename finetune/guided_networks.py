"""The two networks of a finetuning as one module, so that their weights are averaged and saved together."""

from torch import nn

from ..downstream import TaskNetwork


class Networks(nn.Module):
    """A fusion network, and the network that does a downstream task on its images; None without such a task."""

    def __init__(self, network: nn.Module, task: TaskNetwork | None) -> None:
        super().__init__()
        self.network = network
        self.task = task
