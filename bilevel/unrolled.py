"""The hypergradient through K inner steps, differentiated by reverse mode."""

from typing import Any

import torch

from .gradients import flatten, partial_gradients, subtract, vector_jacobian
from .hypergradient import Hypergradient, conclude
from .inner_loop import inner_loop
from .isolation import isolated
from .problem import BilevelProblem


def unrolled(
    problem: BilevelProblem,
    outer_batch: Any,
    inner_batch: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    steps: int = 1,
) -> Hypergradient:
    """G = F_a(w_K) + (dw_K / da)' F_w(w_K), where w_K is w after K inner steps on the inner batch.

    K + 1 forward and backward passes and one backward pass through all of the steps, which keep K graphs.

    Source: Franceschi et al., "Bilevel Programming for Hyperparameter Optimization and Meta-Learning"
    (ICML 2018).

    Args:
        problem: The bilevel problem, at its current a and w.
        outer_batch: Passed to the outer loss.
        inner_batch: Passed to the inner loss, at every step.
        optimizer: `torch.optim.SGD` or `torch.optim.Adam` over the module's parameters, whose settings and
            state the steps start from; it is left as it is. By default gradient descent with learning rate
            0.01.
        steps: K, >= 1.

    Returns:
        The hypergradient with f_w at w, and the diagnostics of F at w_K and of f at w.

    Raises:
        NonFiniteError: If a loss or gradient is not finite.
        UserError: If the module or optimiser is of a kind that `inner_loop` refuses.
    """
    a = tuple(problem.outer_parameters)
    optimizer = optimizer or torch.optim.SGD(problem.inner_parameters, lr=0.01)
    with isolated(problem) as evaluate, inner_loop(problem.module, optimizer, problem.average) as loop:
        f = evaluate(problem.inner_loss, inner_batch, loop.module)
        inner = tuple(gradient.detach() for gradient in loop.step(f))
        for _ in range(steps - 1):
            loop.step(evaluate(problem.inner_loss, inner_batch, loop.module))
        w_K = loop.parameters
        # Leaves at w_K give both partial gradients of F; the chain rule then goes on through the steps.
        leaves = loop.detach()
        F = evaluate(problem.outer_loss, outer_batch, loop.module)
        F, F_a, F_w = partial_gradients(F, a, leaves, problem.average)
        G = subtract(F_a, problem.average(vector_jacobian(w_K, a, F_w)), -1.0)
    (f,) = problem.average([f.detach()])
    return conclude(F, F_a, G, F_w=flatten(F_w), f=f, f_w=flatten(inner), inner=inner)
