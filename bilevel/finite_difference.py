"""The second-order hypergradient of DARTS: one inner step, with its mixed product by central differences."""

from typing import Any

import torch
from torch import Tensor

from .gradients import Gradients, flatten, loss_and_gradient, partial_gradients, subtract, vector_jacobian
from .hypergradient import Hypergradient, make_hypergradient
from .inner_loop import next_weights
from .isolation import isolated
from .problem import BilevelProblem


def finite_difference(
    problem: BilevelProblem,
    outer_batch: Any,
    inner_batch: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    max_norm: float | None = None,
    learning_rate: float = 0.01,
    step: float = 0.01,
) -> Hypergradient:
    """Estimate the hypergradient after one inner step, with the mixed product by central differences.

        G = F_a(w') + (f_a(w+) - f_a(w-)) / 2h,  w± = w ± h v,  v = (dw' / df_w)' F_w(w'),  h = step / |v|

    Here w' is w after a step of an optimiser. For gradient descent, w' = w - lr f_w and v = -lr F_w(w'); for Adam,
    dw' / df_w depends on its moments. The error of the difference is O(h²). The cost is four forward and four backward
    passes, and a few copies of w.

    Args:
        optimizer: Optimiser of the module's parameters, `torch.optim.SGD` or `Adam`. The step starts from its settings
            and its state, which stay unchanged. Default: gradient descent with ``learning_rate``.
        max_norm: Norm to which the step clips a longer gradient, as `torch.nn.utils.clip_grad_norm_` does; None for no
            bound.
        learning_rate: Learning rate lr of gradient descent, > 0. With an optimiser it is not used.
        step: Distance of w+ and w- from w, > 0.

    Returns:
        The hypergradient with f_w. The diagnostics are of F at w' and of f at w.

    Raises:
        NonFiniteError: If a loss or a gradient is not finite.
        UserError: If the optimiser is of a kind that `inner_loop` refuses.

    References:
        Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search" (ICLR 2019), equations 7 and 8.

    Example:
        >>> a, module = torch.tensor(2.0, requires_grad=True), torch.nn.ParameterList([torch.tensor(2.0)])
        >>> problem = BilevelProblem(module, [a], lambda w, _: w[0] ** 2, lambda w, _: (w[0] - a) ** 2)
        >>> print(f"{finite_difference(problem, None, None, learning_rate=0.5).outer[0]:.3f}")
        4.000
    """
    a, w = tuple(problem.outer_parameters), problem.inner_parameters
    optimizer = optimizer or torch.optim.SGD(w, lr=learning_rate)
    start = [parameter.detach().clone() for parameter in w]

    @torch.no_grad()
    def move(weights: Gradients | list[Tensor]) -> None:
        torch._foreach_copy_(w, weights)

    with isolated(problem) as evaluate:

        def f_a() -> Gradients:
            return loss_and_gradient(evaluate(problem.inner_loss, inner_batch), a, problem.average)[1]

        f, f_w = loss_and_gradient(evaluate(problem.inner_loss, inner_batch), w, problem.average)
        gradients = tuple(gradient.detach().requires_grad_() for gradient in f_w)
        stepped = next_weights(problem.module, optimizer, gradients, max_norm)
        try:
            move(stepped)
            F, F_a, F_w = partial_gradients(evaluate(problem.outer_loss, outer_batch), a, w, problem.average)
            v = vector_jacobian(stepped, gradients, F_w)
            flat = flatten(v)
            h = step / torch.linalg.vector_norm(flat).clamp_min(torch.finfo(flat.dtype).tiny)
            direction = torch._foreach_mul(v, h)
            move(torch._foreach_add(start, direction))
            f_a_plus = f_a()
            move(torch._foreach_sub(start, direction))
            f_a_minus = f_a()
        finally:
            move(start)
    G = subtract(F_a, subtract(f_a_minus, f_a_plus), 1 / (2 * h))
    return make_hypergradient(F, F_a, G, F_w=flatten(F_w), f=f, f_w=flatten(f_w), inner=f_w)
