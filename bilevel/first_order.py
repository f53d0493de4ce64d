"""The first-order hypergradient, which takes the inner variables as constant."""

from typing import Any

from .gradients import loss_and_gradient
from .hypergradient import Hypergradient, make_hypergradient
from .isolation import frozen, isolated
from .problem import BilevelProblem


def first_order(problem: BilevelProblem, outer_batch: Any, inner_batch: Any) -> Hypergradient:
    """Estimate the hypergradient by G = F_a, as if w did not depend on a.

    The cost is one forward and one backward pass.

    Args:
        inner_batch: Not used, since every estimator has the same signature.

    Returns:
        The hypergradient, without f_w.

    Raises:
        NonFiniteError: If the outer loss or its gradient is not finite.

    References:
        Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search" (ICLR 2019), section 2.3 with xi = 0.

    Example:
        >>> import torch
        >>> a, module = torch.tensor(2.0, requires_grad=True), torch.nn.ParameterList([torch.tensor(3.0)])
        >>> problem = BilevelProblem(module, [a], lambda w, _: a * w[0], lambda w, _: (w[0] - a) ** 2)
        >>> first_order(problem, None, None).outer
        (tensor(3.),)
    """
    # With w frozen, neither the weight gradients nor the intermediate results for them are computed.
    with isolated(problem) as evaluate:
        with frozen(problem.inner_parameters):
            F = evaluate(problem.outer_loss, outer_batch)
            mean, F_a = loss_and_gradient(F, problem.outer_parameters, problem.average)
        if not F.requires_grad:
            evaluate(problem.outer_loss, outer_batch)  # an error, unless F depends on w
    return make_hypergradient(mean, F_a, F_a)
