"""The implicit hypergradient with the inverse Hessian as a truncated Neumann series."""

from typing import Any

import torch
from torch import Tensor

from .hypergradient import Hypergradient
from .implicit import HessianProduct, implicit_hypergradient
from .problem import BilevelProblem


def neumann(
    problem: BilevelProblem,
    outer_batch: Any,
    inner_batch: Any,
    *,
    learning_rate: float = 0.01,
    terms: int = 10,
    damping: float = 0.0,
) -> Hypergradient:
    """G = F_a - f_aw p, p = lr sum over k = 0..terms of (I - lr H)^k F_w, H = f_ww + damping I.

    Two forward and two backward passes, ``terms`` Hessian products and one mixed product. Converges where
    0 < lr H < 2, geometrically with the spectral radius of I - lr H.

    Source: Lorraine, Vicol and Duvenaud, "Optimizing Millions of Hyperparameters by Implicit Differentiation"
    (AISTATS 2020), algorithm 3.

    Args:
        problem: The bilevel problem, at its current a and w.
        outer_batch: Passed to the outer loss.
        inner_batch: Passed to the inner loss.
        learning_rate: lr, > 0 and below 2 over the largest eigenvalue of H.
        terms: Hessian products, >= 0.
        damping: Multiple of the identity added to f_ww, >= 0.

    Returns:
        The hypergradient with f_w and the diagnostic ``residual``: the last term of the series over the
        first, which is the relative residual |F_w - H p| / |F_w| of the sum without it. Above 1 the series
        diverges.

    Raises:
        NonFiniteError: If a loss or gradient is not finite.
        UserError: If the module is compiled.
    """

    def solve(hessian_product: HessianProduct, F_w: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        term = total = F_w
        for _ in range(terms):
            term = term - learning_rate * hessian_product(term)
            total = total + term
        first = torch.linalg.vector_norm(F_w).clamp_min(torch.finfo(F_w.dtype).tiny)
        return learning_rate * total, {"residual": torch.linalg.vector_norm(term) / first}

    return implicit_hypergradient(problem, outer_batch, inner_batch, damping=damping, solve=solve)
