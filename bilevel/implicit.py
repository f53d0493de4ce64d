"""The implicit function theorem, for estimators that differ in how they solve its linear system."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .compiled import refuse_compiled
from .gradients import Gradients, flatten, partial_gradients, subtract, twice_differentiable, unflatten, vector_jacobian
from .hypergradient import Hypergradient, make_hypergradient
from .isolation import isolated
from .problem import BilevelProblem

HessianProduct = Callable[[Tensor], Tensor]
Solve = Callable[[HessianProduct, Tensor], tuple[Tensor, dict[str, Tensor | float]]]


def implicit_hypergradient(
    problem: BilevelProblem, outer_batch: Any, inner_batch: Any, *, damping: float, solve: Solve
) -> Hypergradient:
    """Estimate G = F_a - f_aw q, where q approximates the solution of (f_ww + damping I) q = F_w.

    Hessian products are exact. They and the mixed product share the graph of f_w, which is computed once.

    Args:
        damping: Multiple of the identity that is added to f_ww, >= 0.
        solve: Function of the product v -> (f_ww + damping I) v and of F_w. It returns q and its diagnostics; all
            vectors are flat.

    Returns:
        The hypergradient with f_w and the diagnostics of ``solve``.

    Raises:
        NonFiniteError: If a loss or a gradient is not finite.
        UserError: If the module is compiled.
    """
    refuse_compiled(problem.module)
    a, w = tuple(problem.outer_parameters), problem.inner_parameters
    with isolated(problem) as evaluate:
        F, F_a, F_w = partial_gradients(evaluate(problem.outer_loss, outer_batch), a, w, problem.average)
        with twice_differentiable():
            f = evaluate(problem.inner_loss, inner_batch)
        f_w = torch.autograd.grad(f, w, create_graph=True, materialize_grads=True)  # of the local part of the batch

        def product(variables: Sequence[Tensor], vector: Tensor) -> Gradients:
            return problem.average(vector_jacobian(f_w, variables, unflatten(vector, w)))

        def hessian_product(vector: Tensor) -> Tensor:
            return flatten(product(w, vector)) + damping * vector

        outer = flatten(F_w)
        q, extra = solve(hessian_product, outer)
        G = subtract(F_a, product(a, q))
    f, *inner = problem.average([tensor.detach() for tensor in (f, *f_w)])
    return make_hypergradient(F, F_a, G, F_w=outer, f=f, f_w=flatten(inner), inner=tuple(inner), extra=extra)
