"""Adaptation of a module's weights by a few optimiser steps, without recording the steps for differentiation."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .isolation import copied_buffers
from .problem import Loss, checked

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Adaptation:
    """How weights adapt to a task: optimiser steps from a fresh state, with one learning rate for each layer.

    Attributes:
        layers: Parameters that adapt, in groups that share a rate; `layers_of` makes them.
        rates: Learning rates, shape (len(layers),), > 0; a leaf that requires grad if they are learned.
        optimizer: Builds the optimiser from param groups, such as `torch.optim.SGD`.

    Example:
        >>> module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> adaptation = Adaptation(list(layers_of(module).values()), torch.tensor([0.1, 0.01]), torch.optim.Adam)
        >>> [group["lr"] for group in adaptation.build_optimizer().param_groups] == adaptation.rates.tolist()
        True
    """

    layers: Sequence[Sequence[nn.Parameter]]
    rates: Tensor
    optimizer: OptimizerFactory = torch.optim.SGD

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Build the optimiser, with one param group for each layer."""
        return self.optimizer(
            [{"params": list(layer), "lr": rate} for layer, rate in zip(self.layers, self.rates.tolist(), strict=True)]
        )


def layers_of(module: nn.Module, within: str = "") -> dict[str, list[nn.Parameter]]:
    """Group the parameters that require grad by the submodule that owns them.

    Args:
        module: Module whose layers are listed, in the order of `named_modules`.
        within: Dotted name of a submodule that limits the result to its own layers; "" for all of them.

    Returns:
        The parameters of each layer, by the layer's name. A parameter that several layers share is listed once.

    Example:
        >>> module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> {name: len(parameters) for name, parameters in layers_of(module).items()}
        {'0': 2, '2': 2}
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
    """Train a module by one optimiser step on each batch.

    Args:
        module: Module that is changed in place: its weights by the steps, its buffers by the forward passes.
        loss: Function that is called as ``loss(module, batch)`` and returns a scalar.
        support: Batches of the steps, one for each.
        optimizer: Optimiser of the weights that move. Its state is used and updated.

    Returns:
        The loss before each step, scalars without a graph.

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0)])
        >>> sgd = torch.optim.SGD(module.parameters(), lr=0.25)
        >>> [loss.item() for loss in adapt(module, lambda w, target: (w[0] - target) ** 2, [3.0, 3.0], sgd)]
        [4.0, 1.0]
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    losses = []
    for batch in support:
        value = checked(loss(module, batch), "loss")
        for weight, gradient in zip(weights, torch.autograd.grad(value, weights, materialize_grads=True), strict=True):
            weight.grad = gradient
        optimizer.step()
        losses.append(value.detach())
    for weight in weights:
        weight.grad = None
    return losses


@contextmanager
def restored(module: nn.Module) -> Iterator[list[Tensor]]:
    """Restore a module's weights, `.grad` and buffers at the end of a `with` block.

    Yields:
        Copies of the weights that require grad, as they are at the start of the block.

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0)])
        >>> with restored(module) as initial:
        ...     _ = module[0].detach().fill_(5.0)
        >>> module[0].item(), initial
        (1.0, [tensor(1.)])
    """
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = [weight.grad for weight in weights]
    initial = [weight.detach().clone() for weight in weights]
    try:
        with copied_buffers(module):
            yield initial
    finally:
        with torch.no_grad():
            for weight, copy, gradient in zip(weights, initial, gradients, strict=True):
                weight.copy_(copy)
                weight.grad = gradient
