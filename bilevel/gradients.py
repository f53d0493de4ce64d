"""Gradients as tuples of tensors and as flat vectors, and the operations that estimators need on them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from .problem import Average

Gradients = tuple[Tensor, ...]


def twice_differentiable() -> AbstractContextManager[None]:
    """Compute attention, within a block, by the one of torch's kernels that has second derivatives."""
    from torch.nn.attention import SDPBackend, sdpa_kernel  # here, because it takes a tenth of a second

    return sdpa_kernel(SDPBackend.MATH)


def loss_and_gradient(loss: Tensor, variables: Sequence[Tensor], average: Average) -> tuple[Tensor, Gradients]:
    """Average a loss and its gradient over the processes, after one backward pass.

    Args:
        loss: Loss of the local part of the batch, a scalar. Its graph is freed.
        variables: Leaf tensors; the gradient by a variable that the loss does not depend on is zero.

    Returns:
        The mean loss and the mean gradient, both without a graph.
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
    """Split the gradient of `loss_and_gradient` into those by outer variables ``a`` and by inner variables ``w``."""
    mean, gradient = loss_and_gradient(loss, (*a, *w), average)
    return mean, gradient[: len(a)], gradient[len(a) :]


def vector_jacobian(outputs: Gradients, inputs: Sequence[Tensor], vectors: Gradients) -> Gradients:
    """Differentiate <outputs, vectors> by the inputs, and retain the graph for the next product.

    With outputs f_w this is the Hessian product f_ww v for inputs w, and the mixed product f_aw v for inputs a.
    """
    # Constant outputs, such as the gradient of a loss that is linear in w, have no graph and contribute zero.
    pairs = [(output, vector) for output, vector in zip(outputs, vectors, strict=True) if output.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    dependent, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(dependent, inputs, weights, retain_graph=True, materialize_grads=True)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Join all elements into one vector, of float32 at least because inner products overflow in half precision."""
    vector = torch.cat([tensor.reshape(-1) for tensor in tensors])
    return vector.to(torch.promote_types(vector.dtype, torch.float32))


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> Gradients:
    """Invert `flatten`: split a vector into tensors with the shapes and dtypes of ``like``."""
    pieces = torch.split(vector, [tensor.numel() for tensor in like])
    return tuple(piece.view(tensor.shape).to(tensor.dtype) for piece, tensor in zip(pieces, like, strict=True))


def subtract(gradients: Gradients, others: Gradients, scale: Tensor | float = 1.0) -> Gradients:
    """Subtract ``scale`` times the other gradients."""
    return tuple(torch._foreach_sub(gradients, torch._foreach_mul(others, scale)))
