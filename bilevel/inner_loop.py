"""Differentiable optimiser steps; the only file that imports `higher`."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import UserError
from .compiled import refuse_compiled
from .gradients import Gradients
from .problem import Average

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Python warns of old syntax in higher when it first compiles it
    from higher.optim import DifferentiableOptimizer, DifferentiableSGD
    from higher.patch import monkeypatch


class InnerLoop:
    """A copy of a module whose weights are a differentiable function of the module's weights.

    The function `inner_loop` makes it.

    Attributes:
        module: The copy, with weights and buffers of its own. Losses are evaluated with it.

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0)])
        >>> with inner_loop(module, torch.optim.SGD(module.parameters(), lr=0.25)) as loop:
        ...     _ = loop.step(loop.module[0] ** 2)
        ...     torch.autograd.grad(loop.parameters[0], module[0])  # w_1 = w - 0.25 * 2 w
        (tensor(0.5000),)
    """

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, average: Average, max_norm: float | None
    ) -> None:
        self.module: Any = monkeypatch(module, copy_initial_weights=False)
        self._optimizer = _DIFFERENTIABLE[type(optimizer)](optimizer, module.parameters(), fmodel=self.module)
        self._average, self._max_norm = average, max_norm

    @property
    def parameters(self) -> Gradients:
        """The current weights w_k, one for each parameter of the original module that requires grad."""
        return tuple(parameter for parameter in self.module.fast_params if parameter.requires_grad)

    def step(self, loss: Tensor, rates: Tensor | None = None) -> Gradients:
        """Take one differentiable optimiser step.

        Args:
            loss: Loss that is computed with ``module``, a scalar.
            rates: Learning rates that replace the optimiser's, shape (param groups,). They may require grad.

        Returns:
            The differentiable gradient of the loss by ``parameters`` before the step, averaged over the processes and
            not clipped, zeros where the loss does not depend on a parameter.
        """
        before = self.module.fast_params
        averaged: list[Tensor] = []

        def average_and_clip(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            # Zeros where there is no gradient: with momentum, or moments of Adam, such a weight moves too.
            moving = [
                torch.zeros_like(parameter) if gradient is None else gradient
                for parameter, gradient in zip(before, gradients, strict=True)
                if parameter.requires_grad
            ]
            averaged.extend(self._average(moving))
            clipped = iter(_clip(averaged, self._max_norm))
            return tuple(next(clipped) if parameter.requires_grad else None for parameter in before)

        override = None if rates is None else {"lr": list(rates.unbind())}
        self._optimizer.step(loss, override=override, grad_callback=average_and_clip)
        return tuple(averaged)

    def detach(self) -> Gradients:
        """Detach the weights from the graph and return them as leaves, in the order of ``parameters``."""
        weights = [weight.detach().requires_grad_(weight.requires_grad) for weight in self.module.fast_params]
        self.module.update_params(weights)
        return self.parameters

    def close(self) -> None:
        """Free the graphs. The copy refers to itself, so that without this they would outlive it."""
        self.module.track_higher_grads = False
        self.module._fast_params = self.module._fast_params[-1:]
        self.detach()


@contextmanager
def inner_loop(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average = tuple,
    *,
    max_norm: float | None = None,
) -> Iterator[InnerLoop]:
    """Adapt a copy of a module by differentiable optimiser steps; module and optimiser stay unchanged.

    The weights of the copy are differentiable functions of the module's parameters, as MAML needs them. The steps are
    those of ``optimizer``, from its settings and its state. The graphs are freed at the end of the block, so gradients
    have to be taken within it.

    Args:
        optimizer: Optimiser, `torch.optim.SGD` or `Adam`, of the parameters that change; others stay fixed.
        average: Mean of the gradients of each step over the processes, as in `BilevelProblem`.
        max_norm: Norm to which each step clips a longer gradient, as `torch.nn.utils.clip_grad_norm_` does; None for no
            bound.

    Raises:
        UserError: If the module or the optimiser is of a kind whose steps would be wrong.

    References:
        Grefenstette et al., "Generalized Inner Loop Meta-Learning" (arXiv 1910.01727).

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0)])
        >>> with inner_loop(module, torch.optim.SGD(module.parameters(), lr=0.25)) as loop:
        ...     _ = loop.step(loop.module[0] ** 2)
        ...     loop.parameters[0].item(), module[0].item()
        (0.5, 1.0)
    """
    refuse_compiled(module)
    _refuse_hooks(module)
    _refuse_aliases(module)
    _refuse_optimizer(module, optimizer)
    loop = InnerLoop(module, optimizer, average, max_norm)
    try:
        yield loop
    finally:
        loop.close()


def next_weights(
    module: nn.Module, optimizer: torch.optim.Optimizer, gradients: Gradients, max_norm: float | None
) -> Gradients:
    """Return the weights after the next step of an optimiser, as a differentiable function of the gradients.

    Module and optimiser stay unchanged.

    Args:
        optimizer: Optimiser and ``max_norm`` as in `inner_loop`.
        gradients: One for each parameter of the module that requires grad; they require grad themselves.

    Raises:
        UserError: If the optimiser is of a kind whose steps would be wrong.
    """
    _refuse_optimizer(module, optimizer)
    parameters = list(module.parameters())
    moving = [parameter for parameter in parameters if parameter.requires_grad]
    clipped = _clip(gradients, max_norm)
    # higher takes a loss: a linear one has just these gradients.
    loss = torch.stack([torch.sum(g * parameter) for g, parameter in zip(clipped, moving, strict=True)]).sum()
    after = _DIFFERENTIABLE[type(optimizer)](optimizer, parameters).step(loss, parameters)
    return tuple(weight for weight, parameter in zip(after, parameters, strict=True) if parameter.requires_grad)


def _clip(gradients: Sequence[Tensor], max_norm: float | None) -> Sequence[Tensor]:
    """Scale gradients like `torch.nn.utils.clip_grad_norm_`, which cannot be differentiated."""
    if max_norm is None:
        return gradients
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return [gradient * factor for gradient in gradients]


class _DifferentiableAdam(DifferentiableOptimizer):
    """Adam as in torch.optim. The class of higher adds eps before it corrects the bias of the second moment."""

    def _update(self, grouped_grads: list[list[Tensor | None]], **_: Any) -> None:
        for group, states, gradients in zip(self.param_groups, self.state, grouped_grads, strict=True):
            beta1, beta2 = group["betas"]
            for index, gradient in enumerate(gradients):
                if gradient is None:
                    continue
                weight, state = group["params"][index], states[index]
                gradient = gradient + group["weight_decay"] * weight
                step = int(state.get("step", 0)) + 1
                mean = beta1 * state.get("exp_avg", 0.0) + (1 - beta1) * gradient
                square = beta2 * state.get("exp_avg_sq", 0.0) + (1 - beta2) * gradient.square()
                state.update(step=step, exp_avg=mean, exp_avg_sq=square)
                # At zero the root has an infinite derivative but the step a finite one: keep NaN out of the graph.
                zero = square == 0
                root = torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())
                scale = root / math.sqrt(1 - beta2**step) + group["eps"]
                group["params"][index] = weight - group["lr"] / (1 - beta1**step) * mean / scale


_DIFFERENTIABLE = {torch.optim.SGD: DifferentiableSGD, torch.optim.Adam: _DifferentiableAdam}

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _refuse_hooks(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if any(getattr(part, hooks) for hooks in _HOOKS):
            raise UserError(
                f"module {name or type(module).__name__!r} has hooks, which do not fire in an inner loop: "
                "remove them, or do their work in forward"
            )


def _refuse_aliases(module: nn.Module) -> None:
    # The copy shares plain attributes with the module, so a part behind one would keep its original weights.
    registered = {id(part) for part in (*module.modules(), *module.parameters())}
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute in ("_modules", "_parameters", "_flat_weights"):
                continue
            values = value.values() if isinstance(value, dict) else value
            elements = values if isinstance(value, dict | list | tuple) else [value]
            if any(id(element) in registered for element in elements):
                raise UserError(
                    f"module {name or type(module).__name__!r} reaches a part of itself through the plain "
                    f"attribute {attribute!r}, which an inner loop cannot adapt: "
                    "use nn.ModuleList or nn.ModuleDict"
                )


def _refuse_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    kind = type(optimizer).__name__
    if type(optimizer) not in _DIFFERENTIABLE:
        raise UserError(f"optimizer {kind} cannot be differentiated: use torch.optim.SGD or torch.optim.Adam")
    known = {id(parameter) for parameter in module.parameters()}
    for group in optimizer.param_groups:
        for setting in ("maximize", "decoupled_weight_decay", "amsgrad"):
            if group.get(setting):
                raise UserError(f"optimizer {kind} with {setting}=True cannot be differentiated: leave it False")
        if isinstance(group["lr"], Tensor) and group["lr"].requires_grad:
            raise UserError(
                f"optimizer {kind} with a learned lr would lose its gradient: pass a float, and the rates to step"
            )
        if any(id(parameter) not in known for parameter in group["params"]):
            raise UserError(f"optimizer {kind} holds a parameter that is not in the module: build it from the module")
