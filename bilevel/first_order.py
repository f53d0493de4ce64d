"""The first-order hypergradient: the inner variables are taken as constant."""

from typing import Any

from .gradients import loss_and_gradient
from .hypergradient import Hypergradient, conclude
from .isolation import frozen, isolated
from .problem import BilevelProblem


def first_order(problem: BilevelProblem, outer_batch: Any, inner_batch: Any) -> Hypergradient:
    """G = F_a. One forward and one backward pass.

    Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search" (ICLR 2019), the case xi = 0.

    Args:
        problem: The bilevel problem, at its current a and w.
        outer_batch: Passed to the outer loss.
        inner_batch: Not used; every estimator has the same signature.

    Returns:
        The hypergradient, without f_w.

    Raises:
        NonFiniteError: If the outer loss or its gradient is not finite.
    """
    # With w frozen neither the weight gradients nor what they need of the forward pass is computed.
    with isolated(problem) as evaluate, frozen(problem.inner_parameters):
        F = evaluate(problem.outer_loss, outer_batch)
        F, F_a = loss_and_gradient(F, problem.outer_parameters, problem.average)
    return conclude(F, F_a, F_a)
