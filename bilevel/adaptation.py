"""Adaptation of a module's weights to a task by a few optimiser steps, without a tape through the steps."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .isolation import copied_buffers
from .problem import Loss

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Adaptation:
    """How weights adapt: optimiser steps, from a fresh optimiser, with a rate for each layer.

    Attributes:
        layers: The parameters that adapt, in groups that share a rate; see `layers_of`.
        rates: (len(layers),), the learning rates, positive; a leaf that requires grad if they are learnt.
        optimizer: Makes the optimiser of param groups, such as `torch.optim.SGD`.
    """

    layers: Sequence[Sequence[nn.Parameter]]
    rates: Tensor
    optimizer: OptimizerFactory = torch.optim.SGD

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimiser, with one param group for each layer."""
        return self.optimizer(
            [{"params": list(layer), "lr": rate} for layer, rate in zip(self.layers, self.rates.tolist(), strict=True)]
        )


def layers_of(module: nn.Module, within: str = "") -> dict[str, list[nn.Parameter]]:
    """Group the parameters that require grad by the part of the module that owns them.

    Args:
        module: The module.
        within: Name of a part, to take its layers alone; "" for all.

    Returns:
        The parameters of each layer by its name; a parameter that several parts share comes once.
    """
    layers: dict[str, list[nn.Parameter]] = {}
    seen: set[int] = set()
    for name, part in module.named_modules():
        own = [parameter for parameter in part.parameters(recurse=False) if parameter.requires_grad]
        fresh = [parameter for parameter in own if id(parameter) not in seen]
        seen.update(map(id, fresh))
        if fresh and (not within or name == within or name.startswith(f"{within}.")):
            layers[name] = fresh
    return layers


def adapt(module: nn.Module, loss: Loss, support: Iterable[Any], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Move a module's weights, and its buffers as its passes move them, by one optimiser step on each batch.

    Args:
        module: Holds the weights; changed in place.
        loss: Called as ``loss(module, batch)``; returns a scalar.
        support: The batch of each step.
        optimizer: Holds the weights to move; going on with it goes on with its state.

    Returns:
        The loss before each step, scalars.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    losses = []
    for batch in support:
        value = loss(module, batch)
        for weight, gradient in zip(weights, torch.autograd.grad(value, weights, materialize_grads=True), strict=True):
            weight.grad = gradient
        optimizer.step()
        losses.append(value.detach())
    for weight in weights:
        weight.grad = None
    return losses


@contextmanager
def restored(module: nn.Module) -> Iterator[list[Tensor]]:
    """Give a module's weights, `.grad` and buffers back at the end as they were, and yield the weights that require
    grad as they are at the beginning.
    """
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = [weight.grad for weight in weights]
    kept = [weight.detach().clone() for weight in weights]
    try:
        with copied_buffers(module):
            yield kept
    finally:
        with torch.no_grad():
            for weight, copy, gradient in zip(weights, kept, gradients, strict=True):
                weight.copy_(copy)
                weight.grad = gradient
