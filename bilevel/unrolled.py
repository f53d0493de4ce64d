"""The hypergradient through K inner steps, by reverse-mode differentiation."""

from typing import Any

import torch

from .gradients import flatten, partial_gradients, subtract, twice_differentiable, vector_jacobian
from .hypergradient import Hypergradient, make_hypergradient
from .inner_loop import inner_loop
from .isolation import isolated
from .problem import BilevelProblem


def unrolled(
    problem: BilevelProblem,
    outer_batch: Any,
    inner_batch: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    max_norm: float | None = None,
    steps: int = 1,
) -> Hypergradient:
    """Estimate the hypergradient by differentiation through K inner steps.

        G = F_a(w_K) + (dw_K / da)' F_w(w_K),  w_K = w after K optimiser steps on the inner batch

    The cost is K + 1 forward and backward passes, one backward pass through all steps, and memory for K graphs.

    Args:
        optimizer: Optimiser of the module's parameters, `torch.optim.SGD` or `Adam`. The steps start from its settings
            and its state, which stay unchanged. Default: gradient descent with learning rate 0.01.
        max_norm: Norm to which each step clips a longer gradient, as in `inner_loop`; None for no bound.
        steps: Number K of inner steps, >= 1.

    Returns:
        The hypergradient with f_w at w. The diagnostics are of F at w_K and of f at w.

    Raises:
        NonFiniteError: If a loss or a gradient is not finite.
        UserError: If the module or the optimiser is of a kind that `inner_loop` refuses.
        ValueError: If `steps` is below 1.

    References:
        Franceschi et al., "Bilevel Programming for Hyperparameter Optimization and Meta-Learning" (ICML 2018).

    Example:
        >>> a, module = torch.tensor(2.0, requires_grad=True), torch.nn.ParameterList([torch.tensor(2.0)])
        >>> problem = BilevelProblem(module, [a], lambda w, _: w[0] ** 2, lambda w, _: (w[0] - a) ** 2)
        >>> unrolled(problem, None, None, optimizer=torch.optim.SGD(module.parameters(), lr=0.5)).outer
        (tensor(4.),)
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}; without inner steps use first_order")
    a = tuple(problem.outer_parameters)
    optimizer = optimizer or torch.optim.SGD(problem.inner_parameters, lr=0.01)
    with (
        isolated(problem) as evaluate,
        inner_loop(problem.module, optimizer, problem.average, max_norm=max_norm) as loop,
    ):
        with twice_differentiable():
            f = evaluate(problem.inner_loss, inner_batch, loop.module)
            inner = tuple(gradient.detach() for gradient in loop.step(f))
            for _ in range(steps - 1):
                loop.step(evaluate(problem.inner_loss, inner_batch, loop.module))
        w_K = loop.parameters
        # With leaves at w_K, one backward pass gives both partial gradients of F; the steps are differentiated next.
        leaves = loop.detach()
        F = evaluate(problem.outer_loss, outer_batch, loop.module)
        F, F_a, F_w = partial_gradients(F, a, leaves, problem.average)
        G = subtract(F_a, problem.average(vector_jacobian(w_K, a, F_w)), -1.0)
    (f,) = problem.average([f.detach()])
    return make_hypergradient(F, F_a, G, F_w=flatten(F_w), f=f, f_w=flatten(inner), inner=inner)
