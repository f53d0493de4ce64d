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
    """Estimate the implicit hypergradient with conjugate gradients.

        G = F_a - f_aw q,  H q = F_w,  H = f_ww + damping I

    If H is positive definite, q is exact after as many iterations as H has distinct eigenvalues. At a direction of
    non-positive curvature the iteration stops early; a larger ``damping`` avoids that. The cost is two forward and two
    backward passes, at most ``iterations`` Hessian products and one mixed product.

    Args:
        iterations: Largest number of Hessian products, >= 0.
        damping: Multiple of the identity that is added to f_ww, >= 0.
        tolerance: Relative residual |F_w - H q| / |F_w| at which the iteration stops, >= 0.

    Returns:
        The hypergradient with f_w and the diagnostics ``residual`` (relative, of the recurrence), ``iterations`` and
        ``negative_curvature`` (1 if the iteration stopped for that reason, else 0).

    Raises:
        NonFiniteError: If a loss or a gradient is not finite.
        UserError: If the module is compiled.

    References:
        Pedregosa, "Hyperparameter optimization with approximate gradient" (ICML 2016).
        Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems" (1952).

    Example:
        >>> a, module = torch.tensor(2.0, requires_grad=True), torch.nn.ParameterList([torch.tensor(2.0)])
        >>> problem = BilevelProblem(module, [a], lambda w, _: w[0] ** 2, lambda w, _: (w[0] - a) ** 2)
        >>> conjugate_gradient(problem, None, None).outer  # w*(a) = a, so G = d(a²) / da
        (tensor(4.),)
    """

    def solve(hessian_product: HessianProduct, F_w: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        q = torch.zeros_like(F_w)
        residual = direction = F_w
        first = square = torch.dot(residual, residual).item()
        products, indefinite = 0, False
        while products < iterations and square > tolerance**2 * first:
            product = hessian_product(direction)
            curvature = torch.dot(direction, product).item()
            products += 1
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
            "iterations": float(products),
            "negative_curvature": float(indefinite),
        }

    return implicit_hypergradient(problem, outer_batch, inner_batch, damping=damping, solve=solve)
