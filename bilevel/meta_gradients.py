"""Meta-gradients: gradients of the initial weights from which a module adapts to a task.

`maml`, `fomaml`, `reptile`, `anil` and `imaml` share one signature. Each takes the initial weights theta through K
steps, one on each support batch, to the adapted weights w_K, and evaluates the loss L of the query batch there. The
gradient is for one task; that for several tasks is their (weighted) sum. The module's weights, buffers and `.grad` stay
unchanged. Buffers, such as the statistics of batch normalisation, start from the module's, change with the support
batches alone, and are part of the result.
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
from .gradients import Gradients, twice_differentiable
from .inner_loop import inner_loop
from .problem import BilevelProblem, Loss, checked


@dataclass(frozen=True)
class MetaGradient:
    """The meta-gradient of one task, with the buffers and losses of the adaptation.

    Attributes:
        initial: Gradients by the initial weights, in the order of the module's parameters that require grad.
        rates: Gradient by the learning rates, shape (layers,); None if they are not learned.
        buffers: Buffers of the module after the adaptation.
        query_loss: Loss of the query batch after the adaptation.
        support_loss: Loss of the first support batch before the adaptation; NaN without steps.

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0)])
        >>> adaptation = Adaptation([list(module)], torch.tensor([0.25]))
        >>> result = fomaml(module, lambda w, target: (w[0] - target) ** 2, [3.0], 3.0, adaptation)
        >>> result.support_loss, result.query_loss, result.rates
        (4.0, 1.0, None)
    """

    initial: Gradients
    rates: Tensor | None
    buffers: Gradients
    query_loss: float
    support_loss: float


def maml(module: nn.Module, loss: Loss, support: Sequence[Any], query: Any, adaptation: Adaptation) -> MetaGradient:
    """Differentiate the adapted loss through all steps: d L(query; w_K(theta)) / d theta.

    The cost is 2K + 2 passes for K + 1 losses, and memory for K graphs. If only the last layers adapt, this is `anil`.

    Args:
        module: Module with the initial weights theta.
        loss: Loss L, which is called as ``loss(module, batch)`` and returns a scalar.
        support: Batches of the K steps, one for each.
        query: Batch on which the adapted weights are evaluated.
        adaptation: Layers, rates and optimiser of the steps; the optimiser is `torch.optim.SGD` or `torch.optim.Adam`.

    Returns:
        The gradient by the initial weights, and by the rates if they require grad.

    Raises:
        NonFiniteError: If the query loss or the gradient is not finite.
        UserError: If the module or the optimiser is of a kind that `inner_loop` refuses.

    References:
        Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks" (ICML 2017).
        Learned rates: Li et al., "Meta-SGD" (arXiv 1707.09835); one for each layer: Antoniou et al., "How to train
        your MAML" (ICLR 2019).

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0)])
        >>> adaptation = Adaptation([list(module)], torch.tensor([0.25]))
        >>> maml(module, lambda w, target: (w[0] - target) ** 2, [3.0], 3.0, adaptation).initial  # 2 (w_1 - 3) / 2
        (tensor(-1.),)
    """
    weights, rates = _weights(module), adaptation.rates
    with inner_loop(module, adaptation.build_optimizer()) as loop:
        losses = []
        for batch in support:
            with twice_differentiable():
                losses.append(checked(loss(loop.module, batch), "loss"))
            loop.step(losses[-1], rates)
        buffers = _buffers(loop.module)
        query_loss = checked(loss(loop.module, query), "loss")
        learned = (rates,) if rates.requires_grad else ()
        gradients = torch.autograd.grad(query_loss, (*weights, *learned), materialize_grads=True)
    return _make_meta_gradient(
        gradients[: len(weights)], gradients[-1] if learned else None, buffers, query_loss, losses
    )


def anil(module: nn.Module, loss: Loss, support: Sequence[Any], query: Any, adaptation: Adaptation) -> MetaGradient:
    """Compute the gradient of `maml` by all weights where only some layers adapt, usually the head.

    Arguments, result and errors are those of `maml`.

    Args:
        adaptation: Adaptation whose layers do not hold all of the module's parameters.

    Raises:
        ValueError: If all layers adapt.

    References:
        Raghu et al., "Rapid Learning or Feature Reuse?" (ICLR 2020).

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0), torch.tensor(2.0)])
        >>> adaptation = Adaptation([[module[1]]], torch.tensor([0.25]))
        >>> anil(module, lambda w, target: (w[0] * w[1] - target) ** 2, [3.0], 3.0, adaptation).initial
        (tensor(-2.), tensor(-0.5000))
    """
    if sum(map(len, adaptation.layers)) == len(_weights(module)):
        raise ValueError("anil needs layers that do not adapt; this adaptation holds all of them, which is maml")
    return maml(module, loss, support, query, adaptation)


def fomaml(module: nn.Module, loss: Loss, support: Sequence[Any], query: Any, adaptation: Adaptation) -> MetaGradient:
    """Take the gradient of L(query; w) at w_K for the gradient by theta: MAML without second derivatives.

    The gradients of the steps count as constants, also in the gradient by the rates. The cost is K + 1 passes and the
    memory of one. Without support batches this is ordinary training, in which the query batch changes the buffers.
    Arguments and result are those of `maml`.

    Args:
        adaptation: Layers, rates and optimiser of the steps; the optimiser may be of any kind.

    Raises:
        NonFiniteError: If the query loss or the gradient is not finite.

    References:
        Finn et al. (ICML 2017), section 5.2.
        Nichol et al., "On First-Order Meta-Learning Algorithms" (arXiv 1803.02999).

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0)])
        >>> adaptation = Adaptation([list(module)], torch.tensor([0.25]))
        >>> fomaml(module, lambda w, target: (w[0] - target) ** 2, [3.0], 3.0, adaptation).initial  # 2 (w_1 - 3)
        (tensor(-2.),)
    """
    weights = _weights(module)
    with restored(module) as initial:
        losses = adapt(module, loss, support, adaptation.build_optimizer())
        buffers = _buffers(module)
        query_loss = checked(loss(module, query), "loss")
        if not losses:
            buffers = _buffers(module)
        gradients = torch.autograd.grad(query_loss, weights, materialize_grads=True)
        rates = _first_order_rate_gradient(module, initial, gradients, adaptation)
    return _make_meta_gradient(gradients, rates, buffers, query_loss, losses)


def reptile(module: nn.Module, loss: Loss, support: Sequence[Any], query: Any, adaptation: Adaptation) -> MetaGradient:
    """Compute (theta - w_K) / rate for each layer, which with gradient descent is the sum of the steps' gradients.

    Layers that do not adapt have the gradient zero. Rates cannot be learned. The cost is K passes; the query batch is
    only evaluated. Arguments and result are those of `maml`.

    Args:
        adaptation: Layers, rates and optimiser of the steps; the optimiser may be of any kind.

    Raises:
        NonFiniteError: If the query loss or the gradient is not finite.

    References:
        Nichol et al., "On First-Order Meta-Learning Algorithms" (arXiv 1803.02999).

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0)])
        >>> adaptation = Adaptation([list(module)], torch.tensor([0.25]))
        >>> reptile(module, lambda w, target: (w[0] - target) ** 2, [3.0], 3.0, adaptation).initial  # 2 (theta - 3)
        (tensor(-4.),)
    """
    with restored(module) as initial:
        losses = adapt(module, loss, support, adaptation.build_optimizer())
        buffers = _buffers(module)
        with torch.no_grad():
            query_loss = checked(loss(module, query), "loss")
        layers = zip(adaptation.layers, adaptation.rates.detach(), strict=True)
        rates = {id(weight): rate for layer, rate in layers for weight in layer}
        gradients = tuple(
            (start - weight.detach()) / rates[id(weight)] if id(weight) in rates else torch.zeros_like(start)
            for start, weight in zip(initial, _weights(module), strict=True)
        )
    return _make_meta_gradient(gradients, None, buffers, query_loss, losses)


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
    """Differentiate implicitly along w*(theta) = argmin L(support; w) + strength |w - theta|² / 2.

        G = (I + L_ww(support) / strength)^-1 L_w(query), at the weights that K steps towards w* reach

    L(support) is the mean over the different support batches. `conjugate_gradient` solves the linear system; each of
    its Hessian products goes over all of these batches. The memory does not grow with the number of steps on the same
    batches. Rates cannot be learned. If the curvature along L_w(query) is not positive, because the strength is too
    small, the gradient is L_w(query), its limit for growing strength. Arguments and result are those of `maml`.

    Args:
        adaptation: Layers, rates and optimiser of the steps; the optimiser may be of any kind, and all of the module's
            parameters adapt.
        strength: Weight of the squared distance to theta, > 0 and above minus the smallest eigenvalue of L_ww.
        iterations: Largest number of Hessian products, >= 0.
        tolerance: Relative residual of the linear system at which the iteration stops, >= 0.

    Raises:
        NonFiniteError: If the query loss or the gradient is not finite.
        UserError: If the module is compiled.

    References:
        Rajeswaran et al., "Meta-Learning with Implicit Gradients" (NeurIPS 2019).

    Example:
        >>> module = nn.ParameterList([torch.tensor(1.0)])
        >>> adaptation = Adaptation([list(module)], torch.tensor([0.25]))
        >>> imaml(module, lambda w, target: (w[0] - target) ** 2, [3.0], 3.0, adaptation, strength=2.0).initial
        (tensor(-1.),)
    """
    with restored(module) as initial:
        theta = [start.requires_grad_() for start in initial]

        def regularised(module: nn.Module, batches: Sequence[Any]) -> Tensor:
            distances = [(weight - start).square().sum() for weight, start in zip(_weights(module), theta, strict=True)]
            mean = sum(checked(loss(module, batch), "loss") for batch in batches) / max(len(batches), 1)
            return mean + strength / 2 * torch.stack(distances).sum()

        losses = adapt(module, regularised, [[batch] for batch in support], adaptation.build_optimizer())
        buffers = _buffers(module)
        problem = BilevelProblem(module, theta, loss, regularised)
        different = list({id(batch): batch for batch in support}.values())
        estimate = conjugate_gradient(problem, query, different, iterations=iterations, tolerance=tolerance)
        gradients = estimate.outer
        if estimate.diagnostics["residual"] == 1:  # conjugate gradients stopped before their first step
            gradients = torch.autograd.grad(loss(module, query), _weights(module), materialize_grads=True)
    query_loss = torch.tensor(estimate.diagnostics["outer_loss"], dtype=torch.float64)
    return _make_meta_gradient(gradients, None, buffers, query_loss, losses)


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


def _first_order_rate_gradient(
    module: nn.Module, initial: list[Tensor], gradients: Gradients, adaptation: Adaptation
) -> Tensor | None:
    """Compute the gradient by the rates, <g, dw_K / d rate>, with w_K - theta proportional to the layer's rate."""
    if not adaptation.rates.requires_grad:
        return None
    moved = {
        id(weight): torch.sum(gradient * (weight.detach() - start))
        for weight, start, gradient in zip(_weights(module), initial, gradients, strict=True)
    }
    sums = torch.stack([torch.stack([moved[id(weight)] for weight in layer]).sum() for layer in adaptation.layers])
    return sums.to(adaptation.rates) / adaptation.rates.detach()


def _make_meta_gradient(
    gradients: Gradients, rates: Tensor | None, buffers: Gradients, query_loss: Tensor, losses: list[Tensor]
) -> MetaGradient:
    """Check that the query loss and the gradient are finite, with a single transfer from the device."""
    learned = () if rates is None else (rates.to(gradients[0]),)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm((*gradients, *learned))))
    first = losses[0] if losses else torch.full_like(query_loss, math.nan)
    values = torch.stack([query_loss.detach().to(norm), norm, first.detach().to(norm)]).tolist()
    check_finite({"query loss": values[0], "gradient by the initial weights or rates": values[1]})
    return MetaGradient(tuple(gradient.detach() for gradient in gradients), rates, buffers, values[0], values[2])
