"""The implicit hypergradient of TIM, which replaces the inner Hessian by a matrix of rank one."""

from typing import Any

import torch
from torch import Tensor

from .gradients import flatten, partial_gradients, subtract
from .hypergradient import Hypergradient, make_hypergradient
from .isolation import isolated
from .problem import BilevelProblem


def gauss_newton(
    problem: BilevelProblem,
    outer_batch: Any,
    inner_batch: Any,
    *,
    epsilon: float = 1e-8,
    clip: float = 10.0,
) -> Hypergradient:
    """Estimate the hypergradient with a rank-one inner Hessian.

        G = F_a - c f_a,  c = <F_w, f_w> / (<f_w, f_w> + eps),  eps = epsilon |F_w| |f_w|

    With f_ww replaced by f_w f_w' and f_aw by f_a f_w', the implicit term f_aw f_ww^-1 F_w becomes c f_a. This eps
    makes c independent of the common scale of both losses. The cost is two forward and two backward passes.

    Args:
        epsilon: Relative damping, >= 0. It bounds |c| by 1 / epsilon.
        clip: Bound on |c|, > 0. Near the inner optimum, c grows like 1 / |f_w| and the formula no longer holds.

    Returns:
        The hypergradient with f_w and the diagnostic ``coefficient``, which is c.

    Raises:
        NonFiniteError: If a loss or a gradient is not finite.

    References:
        Liu et al., "A Task-guided, Implicitly-searched and Meta-initialized Deep Model for Image Fusion" (arXiv
        2305.15862), the implicit search.

    Example:
        >>> a, module = torch.tensor(2.0, requires_grad=True), torch.nn.ParameterList([torch.tensor(3.0)])
        >>> problem = BilevelProblem(module, [a], lambda w, _: w[0] ** 2, lambda w, _: (w[0] - a) ** 2)
        >>> estimate = gauss_newton(problem, None, None)
        >>> estimate.outer, estimate.diagnostics["coefficient"]
        ((tensor(6.),), 3.0)
    """
    a, w = problem.outer_parameters, problem.inner_parameters
    with isolated(problem) as evaluate:
        F, F_a, F_w = partial_gradients(evaluate(problem.outer_loss, outer_batch), a, w, problem.average)
        f, f_a, f_w = partial_gradients(evaluate(problem.inner_loss, inner_batch), a, w, problem.average)
    outer, inner = flatten(F_w), flatten(f_w)
    # The gradients are averaged over the processes before c is computed, because c is not linear in them.
    c = _coefficient(outer, inner, epsilon).clamp(-clip, clip)
    G = subtract(F_a, f_a, c)
    return make_hypergradient(F, F_a, G, F_w=outer, f=f, f_w=inner, inner=f_w, extra={"coefficient": c})


def _coefficient(F_w: Tensor, f_w: Tensor, epsilon: float) -> Tensor:
    square = torch.dot(f_w, f_w)
    damping = epsilon * torch.linalg.vector_norm(F_w) * square.sqrt()
    smallest = torch.finfo(square.dtype).tiny  # c = 0 where f_w = 0
    return torch.dot(F_w, f_w).div((square + damping).clamp_min(smallest))
