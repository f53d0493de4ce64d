"""Gradients as tuples of tensors and as flat vectors, and the few operations estimators need on them."""

from collections.abc import Sequence

import torch
from torch import Tensor

Gradients = tuple[Tensor, ...]


def partial_gradients(loss: Tensor, a: Sequence[Tensor], w: Sequence[Tensor]) -> tuple[Gradients, Gradients]:
    """Both partial gradients of a loss from one backward pass, with zeros for what it does not depend on.

    Args:
        loss: A scalar; its graph is freed.
        a: Outer variables.
        w: Inner variables.

    Returns:
        The gradients by ``a`` and by ``w``.
    """
    gradients = torch.autograd.grad(loss, (*a, *w), materialize_grads=True)
    return gradients[: len(a)], gradients[len(a) :]


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
