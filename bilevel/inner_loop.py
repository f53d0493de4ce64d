"""Differentiable inner adaptation by optimiser steps on the tape; the only place that knows `higher`."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import UserError
from .compiled import refuse_compiled
from .gradients import Gradients
from .problem import Average

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # old syntax in higher, reported when its byte code is first made
    from higher.optim import DifferentiableOptimizer, DifferentiableSGD
    from higher.patch import monkeypatch


class InnerLoop:
    """A copy of a module whose weights are a differentiable function of where they started.

    Args:
        module: Holds the initial weights.
        optimizer: Takes the steps.
        average: Of the gradients, as in `BilevelProblem`.

    Attributes:
        module: The copy, with its own weights and buffers; evaluate losses with it.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> None:
        self.module: Any = monkeypatch(module, copy_initial_weights=False)
        self._optimizer = _DIFFERENTIABLE[type(optimizer)](optimizer, module.parameters(), fmodel=self.module)
        self._average = average

    @property
    def parameters(self) -> Gradients:
        """The current weights w_k, one per parameter of the original module that requires grad."""
        return tuple(parameter for parameter in self.module.fast_params if parameter.requires_grad)

    def step(self, loss: Tensor, rates: Tensor | None = None) -> Gradients:
        """Replace the weights by those after one optimiser step, on the tape.

        Args:
            loss: Scalar, computed with ``module``.
            rates: (param groups,), learning rates in place of the optimiser's, which may be on the tape themselves.

        Returns:
            The raw gradient of the loss by ``parameters`` as they were, averaged, on the tape, zeros where it has none.
        """
        before = self.module.fast_params
        seen: list[Tensor | None] = []

        def see(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            averaged = iter(self._average([gradient for gradient in gradients if gradient is not None]))
            seen.extend(None if gradient is None else next(averaged) for gradient in gradients)
            return tuple(seen)

        override = None if rates is None else {"lr": list(rates.unbind())}
        self._optimizer.step(loss, override=override, grad_callback=see)
        return tuple(
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(before, seen, strict=True)
            if parameter.requires_grad
        )

    def detach(self) -> Gradients:
        """Cut the weights from the tape and return them as leaves, in the order of ``parameters``."""
        weights = [weight.detach().requires_grad_(weight.requires_grad) for weight in self.module.fast_params]
        self.module.update_params(weights)
        return self.parameters

    def close(self) -> None:
        """Let go of the tape. The copy refers to itself, so that without this the graphs would outlive it."""
        self.module.track_higher_grads = False
        self.module._fast_params = self.module._fast_params[-1:]
        self.detach()


@contextmanager
def inner_loop(module: nn.Module, optimizer: torch.optim.Optimizer, average: Average = tuple) -> Iterator[InnerLoop]:
    """Adapt a copy of a module by differentiable optimiser steps; module and optimiser stay as they are.

    The weights of the loop are on the tape of the module's parameters, as MAML needs it. The steps are those
    that ``optimizer`` would take, from its settings and its state. Take gradients before leaving: the graphs
    end there.

    Source: Grefenstette et al., "Generalized Inner Loop Meta-Learning" (arXiv 1910.01727).

    Args:
        module: Holds the initial weights.
        optimizer: `torch.optim.SGD` or `torch.optim.Adam` over parameters of ``module``; others stay fixed.
        average: Of the gradients of each step, as in `BilevelProblem`.

    Raises:
        UserError: If the module or optimiser is of a kind whose steps would be wrong.
    """
    refuse_compiled(module)
    _refuse_hooks(module)
    _refuse_aliases(module)
    _refuse_optimizer(module, optimizer)
    loop = InnerLoop(module, optimizer, average)
    try:
        yield loop
    finally:
        loop.close()


class _DifferentiableAdam(DifferentiableOptimizer):
    """Adam as torch.optim has it. That of higher adds eps before the bias correction of the second moment."""

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
                # At zero the root has an infinite slope but the step a finite one: keep NaN off the tape.
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
    # Plain attributes are shared with the copy: a part reached through one would keep its original weights.
    registered = {id(part) for part in (*module.modules(), *module.parameters())}
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute in ("_modules", "_parameters", "_flat_weights"):
                continue
            values = value.values() if isinstance(value, dict) else value
            held = values if isinstance(value, dict | list | tuple) else [value]
            if any(id(element) in registered for element in held):
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
                f"optimizer {kind} with a learnt lr would lose its gradient: pass a float, and the rates to step"
            )
        if any(id(parameter) not in known for parameter in group["params"]):
            raise UserError(f"optimizer {kind} holds a parameter that is not in the module: build it from the module")
