"""What the processes of a training tell each other after each has differentiated its part of a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .distribution import Ranks


def average_gradients(optimizer: torch.optim.Optimizer, others: Sequence[Tensor], ranks: Ranks) -> tuple[Tensor, ...]:
    """Give all parameters of an optimiser the means of their gradients over the processes, in a single exchange.

    A gradient that a process lacks counts as zero there, as where its images show nothing that a part of a detector is
    for; one that all of them lack stays away.

    Args:
        optimizer: Of the same parameters in every process.
        others: What to average in the same exchange, such as losses; of the parameters' device.
        ranks: The processes.

    Returns:
        The means of the others.
    """
    if ranks.count == 1:
        return tuple(others)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    exist = parameters[0].new_tensor([each.grad is not None for each in parameters])
    exist, *means = ranks.average([exist, *gradients, *others])
    for parameter, mean, exists in zip(parameters, means, exist.tolist(), strict=False):
        # In the parameter's order of dimensions, which fused optimisers take for granted.
        parameter.grad = torch.empty_like(parameter).copy_(mean) if exists else None
    return tuple(means[len(parameters) :])
