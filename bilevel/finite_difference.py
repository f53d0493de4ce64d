"""The second-order hypergradient of DARTS: one inner step, its mixed product by central differences."""

from typing import Any

import torch

from .gradients import Gradients, flatten, loss_and_gradient, partial_gradients, subtract
from .hypergradient import Hypergradient, conclude
from .isolation import isolated
from .problem import BilevelProblem


def finite_difference(
    problem: BilevelProblem,
    outer_batch: Any,
    inner_batch: Any,
    *,
    learning_rate: float = 0.01,
    step: float = 0.01,
) -> Hypergradient:
    """G = F_a(w') - lr (f_a(w+) - f_a(w-)) / 2h, where w' = w - lr f_w(w) and w+- = w +- h F_w(w').

    Four forward and four backward passes, and one copy of w. The error of the difference is O(h^2), where
    h = step / |F_w(w')|.

    Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search" (ICLR 2019), equations 7 and
    8.

    Args:
        problem: The bilevel problem, at its current a and w.
        outer_batch: Passed to the outer loss.
        inner_batch: Passed to the inner loss.
        learning_rate: lr, the step size of the inner step, > 0.
        step: Distance of w+ and w- from w, > 0.

    Returns:
        The hypergradient with f_w, and the diagnostics of F at w' and of f at w.

    Raises:
        NonFiniteError: If a loss or gradient is not finite.
    """
    a, w = tuple(problem.outer_parameters), problem.inner_parameters
    start = [parameter.detach().clone() for parameter in w]

    @torch.no_grad()
    def move(direction: Gradients, distance: float) -> None:
        torch._foreach_copy_(w, start)
        torch._foreach_add_(w, direction, alpha=distance)

    with isolated(problem) as evaluate:

        def f_a() -> Gradients:
            return loss_and_gradient(evaluate(problem.inner_loss, inner_batch), a, problem.average)[1]

        f, f_w = loss_and_gradient(evaluate(problem.inner_loss, inner_batch), w, problem.average)
        try:
            move(f_w, -learning_rate)
            F, F_a, F_w = partial_gradients(evaluate(problem.outer_loss, outer_batch), a, w, problem.average)
            outer = flatten(F_w)
            h = step / torch.linalg.vector_norm(outer).clamp_min(torch.finfo(outer.dtype).tiny)
            direction = tuple(torch._foreach_mul(F_w, h))
            move(direction, 1.0)
            f_a_plus = f_a()
            move(direction, -1.0)
            f_a_minus = f_a()
        finally:
            with torch.no_grad():
                torch._foreach_copy_(w, start)
    G = subtract(F_a, subtract(f_a_plus, f_a_minus), learning_rate / (2 * h))
    return conclude(F, F_a, G, F_w=outer, f=f, f_w=flatten(f_w), inner=f_w)
