"""The implicit hypergradient with the linear system solved by conjugate gradients."""

import math
from typing import Any

import torch
from torch import Tensor

from .hypergradient import Hypergradient
from .implicit import HessianProduct, implicit_hypergradient
from .problem import BilevelProblem


def conjugate_gradient(
    problem: BilevelProblem,
    outer_batch: Any,
    inner_batch: Any,
    *,
    iterations: int = 10,
    damping: float = 0.0,
    tolerance: float = 1e-6,
) -> Hypergradient:
    """G = F_a - f_aw q, where H q = F_w with H = f_ww + damping I is solved by conjugate gradients.

    Two forward and two backward passes, at most ``iterations`` Hessian products and one mixed product. Exact
    in as many iterations as H has distinct eigenvalues, if H is positive definite. At a direction of
    non-positive curvature the iteration stops with what it has; a larger ``damping`` avoids that.

    Source: Pedregosa, "Hyperparameter optimization with approximate gradient" (ICML 2016); Hestenes and
    Stiefel, "Methods of conjugate gradients for solving linear systems" (1952).

    Args:
        problem: The bilevel problem, at its current a and w.
        outer_batch: Passed to the outer loss.
        inner_batch: Passed to the inner loss.
        iterations: Most Hessian products, >= 0.
        damping: Multiple of the identity added to f_ww, >= 0.
        tolerance: Relative residual |F_w - H q| / |F_w| at which to stop, >= 0.

    Returns:
        The hypergradient with f_w and the diagnostics ``residual`` (relative, of the recurrence),
        ``iterations`` and ``negative_curvature`` (1 where the iteration stopped for it).

    Raises:
        NonFiniteError: If a loss or gradient is not finite.
        UserError: If the module is compiled.
    """

    def solve(hessian_product: HessianProduct, F_w: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        q = torch.zeros_like(F_w)
        residual = direction = F_w
        first = square = torch.dot(residual, residual).item()
        done, indefinite = 0, False
        while done < iterations and square > tolerance**2 * first:
            product = hessian_product(direction)
            curvature = torch.dot(direction, product).item()
            done += 1
            indefinite = curvature <= 0
            if indefinite or not math.isfinite(curvature):
                break
            length = square / curvature
            q = q + length * direction
            residual = residual - length * product
            previous, square = square, torch.dot(residual, residual).item()
            direction = residual + (square / previous) * direction
        return q, {
            "residual": math.sqrt(square / first) if first > 0 else 0.0,
            "iterations": float(done),
            "negative_curvature": float(indefinite),
        }

    return implicit_hypergradient(problem, outer_batch, inner_batch, damping=damping, solve=solve)
