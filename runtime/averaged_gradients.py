"""The exchange of gradients between processes after each has differentiated its part of a batch."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .distribution import Ranks


def average_gradients(optimizer: torch.optim.Optimizer, others: Sequence[Tensor], ranks: Ranks) -> tuple[Tensor, ...]:
    """Replace the gradients of an optimiser's parameters by their means over the processes, in a single exchange.

    A missing gradient counts as zero: the images of one process may not use every part of a detector. A gradient that
    is missing in all processes stays missing.

    Args:
        optimizer: Optimiser of the same parameters in every process.
        others: Tensors to average in the same exchange, such as losses, on the parameters' device.

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
        # In the parameter's memory format, which fused optimisers expect.
        parameter.grad = torch.empty_like(parameter).copy_(mean) if exists else None
    return tuple(means[len(parameters) :])


def average_row(row: Mapping[str, float], optimizer: torch.optim.Optimizer, ranks: Ranks) -> dict[str, float]:
    """Average numbers by name over the processes, in one exchange with the gradients; see `average_gradients`."""
    values = optimizer.param_groups[0]["params"][0].new_tensor(list(row.values()))
    (values,) = average_gradients(optimizer, [values], ranks)
    return dict(zip(row, values.tolist(), strict=True))
