"""Gradients as tuples of tensors and as flat vectors, and the few operations estimators need on them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .problem import Average

Gradients = tuple[Tensor, ...]


def loss_and_gradient(loss: Tensor, variables: Sequence[Tensor], average: Average) -> tuple[Tensor, Gradients]:
    """A loss and its gradient from one backward pass, with zeros for what it does not depend on.

    Args:
        loss: A scalar; its graph is freed.
        variables: Leaves.
        average: Of the problem; called once.

    Returns:
        The averages of both, without a graph.
    """
    if loss.requires_grad:
        gradient = torch.autograd.grad(loss, variables, materialize_grads=True)
    else:
        gradient = tuple(torch.zeros_like(variable) for variable in variables)
    mean, *means = average((loss.detach(), *gradient))
    return mean, tuple(means)


def partial_gradients(
    loss: Tensor, a: Sequence[Tensor], w: Sequence[Tensor], average: Average
) -> tuple[Tensor, Gradients, Gradients]:
    """Do as `loss_and_gradient` for outer variables ``a`` and inner variables ``w``, and part the gradients of both."""
    mean, gradient = loss_and_gradient(loss, (*a, *w), average)
    return mean, gradient[: len(a)], gradient[len(a) :]


def vector_jacobian(outputs: Gradients, inputs: Sequence[Tensor], vectors: Gradients) -> Gradients:
    """The derivative of <outputs, vectors> by the inputs; the graph is kept for the next product.

    With outputs f_w this is the Hessian product f_ww v for inputs w, and the mixed product f_aw v for inputs
    a.
    """
    # Constant outputs, such as the gradient of a loss linear in w, have no graph and contribute zero.
    pairs = [(output, vector) for output, vector in zip(outputs, vectors, strict=True) if output.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    kept, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(kept, inputs, weights, retain_graph=True, materialize_grads=True)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """All elements as one vector, in float32 at least because inner products overflow in half precision."""
    vector = torch.cat([tensor.reshape(-1) for tensor in tensors])
    return vector.to(torch.promote_types(vector.dtype, torch.float32))


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> Gradients:
    """The inverse of `flatten`: pieces of the vector in the shapes and precisions of ``like``."""
    pieces = torch.split(vector, [tensor.numel() for tensor in like])
    return tuple(piece.view(tensor.shape).to(tensor.dtype) for piece, tensor in zip(pieces, like, strict=True))


def subtract(gradients: Gradients, others: Gradients, scale: Tensor | float = 1.0) -> Gradients:
    """The gradients minus ``scale`` times the others."""
    return tuple(torch._foreach_sub(gradients, torch._foreach_mul(others, scale)))
