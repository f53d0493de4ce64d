"""The implicit hypergradient of TIM, with the inner Hessian replaced by a matrix of rank one."""

from typing import Any

import torch
from torch import Tensor

from .gradients import flatten, partial_gradients, subtract
from .hypergradient import Hypergradient, conclude
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
    """G = F_a - c f_a with c = <F_w, f_w> / (<f_w, f_w> + eps). Two forward and two backward passes.

    With f_ww replaced by f_w f_w' and f_aw by f_a f_w', the implicit term f_aw f_ww^-1 F_w becomes c f_a.
    Here eps = epsilon |F_w| |f_w|, so that c does not depend on the scale on which both losses are measured.

    Source: Liu et al., "A Task-guided, Implicitly-searched and Meta-initialized Deep Model for Image Fusion"
    (arXiv 2305.15862), the implicit search.

    Args:
        problem: The bilevel problem, at its current a and w.
        outer_batch: Passed to the outer loss.
        inner_batch: Passed to the inner loss.
        epsilon: Relative damping, >= 0; bounds |c| by 1 / epsilon.
        clip: Bound on |c|, > 0. Near the inner optimum c grows like 1 / |f_w| and the formula loses its
            meaning.

    Returns:
        The hypergradient with f_w and the diagnostic ``coefficient``, the c that was used.

    Raises:
        NonFiniteError: If a loss or gradient is not finite.
    """
    a, w = problem.outer_parameters, problem.inner_parameters
    with isolated(problem) as evaluate:
        F, F_a, F_w = partial_gradients(evaluate(problem.outer_loss, outer_batch), a, w, problem.average)
        f, f_a, f_w = partial_gradients(evaluate(problem.inner_loss, inner_batch), a, w, problem.average)
    outer, inner = flatten(F_w), flatten(f_w)
    # Everything above is linear in the data and averaged over the processes; the mean of c would not be c.
    c = _coefficient(outer, inner, epsilon).clamp(-clip, clip)
    G = subtract(F_a, f_a, c)
    return conclude(F, F_a, G, F_w=outer, f=f, f_w=inner, inner=f_w, reported={"coefficient": c})


def _coefficient(F_w: Tensor, f_w: Tensor, epsilon: float) -> Tensor:
    square = torch.dot(f_w, f_w)
    damping = epsilon * torch.linalg.vector_norm(F_w) * square.sqrt()
    smallest = torch.finfo(square.dtype).tiny  # c = 0 where f_w = 0
    return torch.dot(F_w, f_w).div((square + damping).clamp_min(smallest))
