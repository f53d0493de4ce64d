"""Gradients for the weights that adaptation to a task starts from: MAML, FOMAML, Reptile, ANIL and iMAML.

All share one signature and take the gradient for one task; that of several tasks is the (weighted) sum. The loss on
the query batch is taken at w_K, to which the initial weights adapt in K steps, one on each support batch. Each leaves
the module as it found it, weights, buffers and `.grad`. Buffers, such as the statistics of batch normalisation, start
from the module's own, move with the support batches alone, and come back in the result.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import check_finite
from .adaptation import Adaptation, adapt, restored
from .conjugate_gradient import conjugate_gradient
from .gradients import Gradients
from .inner_loop import inner_loop
from .problem import BilevelProblem, Loss


@dataclass(frozen=True)
class MetaGradient:
    """The gradient of one task and what was seen on the way.

    Attributes:
        initial: By the initial weights, in the order of the module's parameters that require grad.
        rates: By the rates of the adaptation, (layers,), where they require grad and the method gives it; else None.
        buffers: The module's buffers after the adaptation.
        query_loss: After the adaptation.
        support_loss: Before it; NaN for no steps.
    """

    initial: Gradients
    rates: Tensor | None
    buffers: Gradients
    query_loss: float
    support_loss: float


def maml(module: nn.Module, loss: Loss, support: Sequence[Any], query: Any, adaptation: Adaptation) -> MetaGradient:
    """d L(query; w_K(theta)) / d theta, through all of the K steps.

    2K + 2 passes for K + 1 losses, and K graphs in memory. With an adaptation whose layers are only the last ones, this
    is ANIL (see `anil`).

    Source: Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks" (ICML 2017).
    Learnt rates: Li et al., "Meta-SGD" (arXiv 1707.09835); one for each layer: Antoniou et al., "How to train your
    MAML" (ICLR 2019).

    Args:
        module: Holds theta.
        loss: L, called as ``loss(module, batch)``; returns a scalar.
        support: The batches of the K steps.
        query: The batch of the outer loss.
        adaptation: How to step; its optimiser must be `torch.optim.SGD` or `torch.optim.Adam`.

    Returns:
        The gradient.

    Raises:
        NonFiniteError: If the query loss or the gradient is not finite.
        UserError: If the module or optimiser is of a kind that `inner_loop` refuses.
    """
    weights, rates = _weights(module), adaptation.rates
    with inner_loop(module, adaptation.build_optimizer()) as loop:
        losses = []
        for batch in support:
            losses.append(loss(loop.module, batch))
            loop.step(losses[-1], rates)
        buffers = _buffers(loop.module)
        query_loss = loss(loop.module, query)
        learnt = (rates,) if rates.requires_grad else ()
        gradients = torch.autograd.grad(query_loss, (*weights, *learnt), materialize_grads=True)
    return _conclude(gradients[: len(weights)], gradients[-1] if learnt else None, buffers, query_loss, losses)


def anil(module: nn.Module, loss: Loss, support: Sequence[Any], query: Any, adaptation: Adaptation) -> MetaGradient:
    """MAML in which some layers alone adapt, usually the head, while all weights are meta-trained.

    Source: Raghu et al., "Rapid Learning or Feature Reuse?" (ICLR 2020).

    Args:
        module: As for `maml`.
        loss: As for `maml`.
        support: As for `maml`.
        query: As for `maml`.
        adaptation: As for `maml`; its layers do not hold all of the module's parameters.

    Returns:
        The gradient, by all of the module's weights.

    Raises:
        NonFiniteError: As for `maml`.
        UserError: As for `maml`.
        ValueError: If all layers adapt.
    """
    if sum(map(len, adaptation.layers)) == len(_weights(module)):
        raise ValueError("in anil some layers stay as they are; this adaptation holds all of them, which is maml")
    return maml(module, loss, support, query, adaptation)


def fomaml(module: nn.Module, loss: Loss, support: Sequence[Any], query: Any, adaptation: Adaptation) -> MetaGradient:
    """The gradient of L(query; w) at w_K, taken for that by theta: MAML without second derivatives.

    K + 1 passes, no memory beyond one of them. The steps' own gradients count as constants, also in the gradient by the
    rates. Without support batches this is plain training, in which the query batch moves the buffers.

    Source: Finn et al. (ICML 2017), section 5.2; Nichol et al., "On First-Order Meta-Learning Algorithms" (arXiv
    1803.02999).

    Args:
        module: As for `maml`.
        loss: As for `maml`.
        support: As for `maml`.
        query: As for `maml`.
        adaptation: How to step, by any optimiser.

    Returns:
        The gradient.

    Raises:
        NonFiniteError: As for `maml`.
    """
    weights = _weights(module)
    with restored(module) as initial:
        losses = adapt(module, loss, support, adaptation.build_optimizer())
        buffers = _buffers(module)
        query_loss = loss(module, query)
        if not losses:
            buffers = _buffers(module)
        gradients = torch.autograd.grad(query_loss, weights, materialize_grads=True)
        rates = _rates_by_first_order(module, initial, gradients, adaptation)
    return _conclude(gradients, rates, buffers, query_loss, losses)


def reptile(module: nn.Module, loss: Loss, support: Sequence[Any], query: Any, adaptation: Adaptation) -> MetaGradient:
    """(theta - w_K) / rate of each layer: with gradient descent, the sum of the gradients that the steps followed.

    K passes; the query batch is only scored. Layers that do not adapt have the gradient zero. Rates cannot be learnt.

    Source: Nichol et al., "On First-Order Meta-Learning Algorithms" (arXiv 1803.02999).

    Args:
        module: As for `maml`.
        loss: As for `maml`.
        support: As for `maml`.
        query: As for `maml`.
        adaptation: How to step, by any optimiser.

    Returns:
        The gradient.

    Raises:
        NonFiniteError: As for `maml`.
    """
    with restored(module) as initial:
        losses = adapt(module, loss, support, adaptation.build_optimizer())
        buffers = _buffers(module)
        with torch.no_grad():
            query_loss = loss(module, query)
        scales = _by_weight(module, adaptation, adaptation.rates.detach())
        gradients = tuple(
            torch.zeros_like(start) if scale is None else (start - weight.detach()) / scale
            for start, weight, scale in zip(initial, _weights(module), scales, strict=True)
        )
    return _conclude(gradients, None, buffers, query_loss, losses)


def imaml(
    module: nn.Module,
    loss: Loss,
    support: Sequence[Any],
    query: Any,
    adaptation: Adaptation,
    *,
    strength: float = 10.0,
    iterations: int = 5,
    tolerance: float = 1e-6,
) -> MetaGradient:
    """The gradient along w*(theta) = argmin L(support; w) + strength |w - theta|² / 2, by implicit differentiation.

    (I + L_ww(support) / strength)^-1 L_w(query), at the weights that K steps towards w* reach, where L(support) is the
    mean over the different support batches. The linear system is that of `conjugate_gradient`: each of its Hessian
    products goes over all of these batches. The memory does not grow with the number of steps taken from the same
    batches. Rates cannot be learnt. Where the curvature along L_w(query) itself is not positive, so that the strength
    is too small to say anything, the gradient is L_w(query), to which it tends with growing strength.

    Source: Rajeswaran et al., "Meta-Learning with Implicit Gradients" (NeurIPS 2019).

    Args:
        module: As for `maml`.
        loss: As for `maml`.
        support: As for `maml`.
        query: As for `maml`.
        adaptation: How to step, by any optimiser; all of the module's parameters adapt.
        strength: Of the pull towards theta, > 0; above minus the smallest eigenvalue of L_ww.
        iterations: Most Hessian products.
        tolerance: Relative residual of the linear system at which to stop, >= 0.

    Returns:
        The gradient.

    Raises:
        NonFiniteError: As for `maml`.
        UserError: If the module is compiled.
    """

    with restored(module) as initial:
        theta = [start.requires_grad_() for start in initial]

        def regularised(module: nn.Module, batches: Sequence[Any]) -> Tensor:
            distances = [(weight - start).square().sum() for weight, start in zip(_weights(module), theta, strict=True)]
            mean = sum(loss(module, batch) for batch in batches) / max(len(batches), 1)
            return mean + strength / 2 * torch.stack(distances).sum()

        losses = adapt(module, regularised, [[batch] for batch in support], adaptation.build_optimizer())
        buffers = _buffers(module)
        problem = BilevelProblem(module, theta, loss, regularised)
        different = list({id(batch): batch for batch in support}.values())
        estimate = conjugate_gradient(problem, query, different, iterations=iterations, tolerance=tolerance)
        gradients = estimate.outer
        if estimate.diagnostics["residual"] == 1:  # no step was taken
            gradients = torch.autograd.grad(loss(module, query), _weights(module), materialize_grads=True)
    query_loss = torch.tensor(estimate.diagnostics["outer_loss"], dtype=torch.float64)
    return _conclude(gradients, None, buffers, query_loss, losses)


META_GRADIENTS: dict[str, Callable[..., MetaGradient]] = {
    "maml": maml,
    "fomaml": fomaml,
    "reptile": reptile,
    "anil": anil,
    "imaml": imaml,
}


def _weights(module: nn.Module) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _buffers(module: nn.Module) -> Gradients:
    return tuple(buffer.detach().clone() for buffer in module.buffers())


def _by_weight(module: nn.Module, adaptation: Adaptation, values: Tensor) -> list[Tensor | None]:
    """Give each weight the value of its layer, None to those that do not adapt."""
    known = {id(weight): value for layer, value in zip(adaptation.layers, values, strict=True) for weight in layer}
    return [known.get(id(weight)) for weight in _weights(module)]


def _rates_by_first_order(
    module: nn.Module, initial: list[Tensor], gradients: Gradients, adaptation: Adaptation
) -> Tensor | None:
    """The gradient by the rates: <g, dw_K / d rate>, where w_K - theta is proportional to the layer's rate."""
    if not adaptation.rates.requires_grad:
        return None
    moved = {
        id(weight): torch.sum(gradient * (weight.detach() - start))
        for weight, start, gradient in zip(_weights(module), initial, gradients, strict=True)
    }
    sums = torch.stack([torch.stack([moved[id(weight)] for weight in layer]).sum() for layer in adaptation.layers])
    return sums.to(adaptation.rates) / adaptation.rates.detach()


def _conclude(
    gradients: Gradients, rates: Tensor | None, buffers: Gradients, query_loss: Tensor, losses: list[Tensor]
) -> MetaGradient:
    """Check what the outer step will build on, with one transfer from the device."""
    learnt = () if rates is None else (rates.to(gradients[0]),)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm((*gradients, *learnt))))
    first = losses[0] if losses else torch.full_like(query_loss, math.nan)
    values = torch.stack([query_loss.detach().to(norm), norm, first.detach().to(norm)]).tolist()
    check_finite({"query loss": values[0], "gradient by the initial weights or rates": values[1]})
    return MetaGradient(tuple(gradient.detach() for gradient in gradients), rates, buffers, values[0], values[2])
