"""The implicit function theorem, shared by the estimators that differ in how they solve its linear system."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .compiled import refuse_compiled
from .gradients import Gradients, flatten, partial_gradients, subtract, unflatten, vector_jacobian
from .hypergradient import Hypergradient, conclude
from .isolation import isolated
from .problem import BilevelProblem

HessianProduct = Callable[[Tensor], Tensor]
Solve = Callable[[HessianProduct, Tensor], tuple[Tensor, dict[str, Tensor | float]]]


def implicit_hypergradient(
    problem: BilevelProblem, outer_batch: Any, inner_batch: Any, *, damping: float, solve: Solve
) -> Hypergradient:
    """G = F_a - f_aw q, where q approximates the solution of (f_ww + damping I) q = F_w.

    Hessian products are exact: f_w is computed once, with a graph that all of them and the mixed product
    share.

    Args:
        problem: The bilevel problem, at its current a and w.
        outer_batch: Passed to the outer loss.
        inner_batch: Passed to the inner loss.
        damping: Multiple of the identity added to f_ww, >= 0.
        solve: Takes v -> (f_ww + damping I) v and F_w, both flat; returns q, flat, and diagnostics.

    Returns:
        The hypergradient with f_w and the diagnostics of ``solve``.

    Raises:
        NonFiniteError: If a loss or gradient is not finite.
        UserError: If the module is compiled.
    """
    refuse_compiled(problem.module)
    a, w = tuple(problem.outer_parameters), problem.inner_parameters
    with isolated(problem) as evaluate:
        F, F_a, F_w = partial_gradients(evaluate(problem.outer_loss, outer_batch), a, w, problem.average)
        f = evaluate(problem.inner_loss, inner_batch)
        f_w = torch.autograd.grad(f, w, create_graph=True, materialize_grads=True)  # of this process's part

        def product(variables: Sequence[Tensor], vector: Tensor) -> Gradients:
            return problem.average(vector_jacobian(f_w, variables, unflatten(vector, w)))

        def hessian_product(vector: Tensor) -> Tensor:
            return flatten(product(w, vector)) + damping * vector

        outer = flatten(F_w)
        q, reported = solve(hessian_product, outer)
        G = subtract(F_a, product(a, q))
    f, *inner = problem.average([tensor.detach() for tensor in (f, *f_w)])
    return conclude(F, F_a, G, F_w=outer, f=f, f_w=flatten(inner), inner=tuple(inner), reported=reported)
