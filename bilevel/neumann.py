"""The implicit hypergradient with a truncated Neumann series for the inverse Hessian."""

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
    """Estimate the implicit hypergradient with a Neumann series.

        G = F_a - f_aw p,  p = lr Σ_{k=0..terms} (I - lr H)^k F_w,  H = f_ww + damping I

    The series converges for 0 < lr H < 2, geometrically with the spectral radius of I - lr H. The cost is two forward
    and two backward passes, ``terms`` Hessian products and one mixed product.

    Args:
        learning_rate: Scale lr of the series, > 0 and below 2 over the largest eigenvalue of H.
        terms: Number of Hessian products, >= 0.
        damping: Multiple of the identity that is added to f_ww, >= 0.

    Returns:
        The hypergradient with f_w and the diagnostic ``residual``: the norm of the last term of the series over the
        norm of the first. It is the relative residual |F_w - H p| / |F_w| of the sum without the last term. Above 1
        the series diverges.

    Raises:
        NonFiniteError: If a loss or a gradient is not finite.
        UserError: If the module is compiled.

    References:
        Lorraine, Vicol and Duvenaud, "Optimizing Millions of Hyperparameters by Implicit Differentiation" (AISTATS
        2020), algorithm 3.

    Example:
        >>> a, module = torch.tensor(2.0, requires_grad=True), torch.nn.ParameterList([torch.tensor(2.0)])
        >>> problem = BilevelProblem(module, [a], lambda w, _: w[0] ** 2, lambda w, _: (w[0] - a) ** 2)
        >>> neumann(problem, None, None, learning_rate=0.25, terms=2).outer  # the limit is 4
        (tensor(3.5000),)
    """

    def solve(hessian_product: HessianProduct, F_w: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        term = total = F_w
        for _ in range(terms):
            term = term - learning_rate * hessian_product(term)
            total = total + term
        first = torch.linalg.vector_norm(F_w).clamp_min(torch.finfo(F_w.dtype).tiny)
        return learning_rate * total, {"residual": torch.linalg.vector_norm(term) / first}

    return implicit_hypergradient(problem, outer_batch, inner_batch, damping=damping, solve=solve)
