"""The second-order hypergradient of DARTS: one inner step, with its mixed product by central differences."""

from typing import Any

import torch

from .gradients import Gradients, flatten, loss_and_gradient, partial_gradients, subtract
from .hypergradient import Hypergradient, make_hypergradient
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
    """Estimate the hypergradient after one inner step, with the Hessian product by central differences.

        G = F_a(w') - lr (f_a(w+) - f_a(w-)) / 2h,  w' = w - lr f_w(w),  w± = w ± h F_w(w'),  h = step / |F_w(w')|

    The error of the difference is O(h²). The cost is four forward and four backward passes, and one copy of w.

    Args:
        learning_rate: Size lr of the inner gradient step, > 0.
        step: Distance of w+ and w- from w, > 0.

    Returns:
        The hypergradient with f_w. The diagnostics are of F at w' and of f at w.

    Raises:
        NonFiniteError: If a loss or a gradient is not finite.

    References:
        Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search" (ICLR 2019), equations 7 and 8.

    Example:
        >>> a, module = torch.tensor(2.0, requires_grad=True), torch.nn.ParameterList([torch.tensor(2.0)])
        >>> problem = BilevelProblem(module, [a], lambda w, _: w[0] ** 2, lambda w, _: (w[0] - a) ** 2)
        >>> print(f"{finite_difference(problem, None, None, learning_rate=0.5).outer[0]:.3f}")
        4.000
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
    return make_hypergradient(F, F_a, G, F_w=outer, f=f, f_w=flatten(f_w), inner=f_w)
