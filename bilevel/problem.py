"""A bilevel problem: two losses, the outer variables and the module with the inner variables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module, Any], Tensor]
Average = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


def checked(value: Tensor, name: str, *, graph: bool = True) -> Tensor:
    """Return the value of a loss if it is one number with a graph.

    Args:
        graph: Whether it needs a graph, where gradients are enabled.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the {name} is {what}; return a scalar tensor, such as the mean of a batch")
    if graph and torch.is_grad_enabled() and not value.requires_grad:
        raise ValueError(f"the {name} has no graph and so no gradient; do not detach it, and leave out no_grad")
    return value


@dataclass(frozen=True)
class BilevelProblem:
    """The problem to minimise F(a, w*(a)) over a, where w*(a) minimises f(a, w) over w.

    The losses take the module as an argument, so that an estimator can evaluate them at other weights.

    Args:
        module: Module whose parameters that require grad are the inner variables w.
        outer_parameters: Outer variables a: leaf tensors that require grad and are neither parameters nor buffers of
            ``module``.
        outer_loss: Outer loss F, which is called as ``outer_loss(module, batch)`` and returns a scalar that depends on
            the inner or the outer variables.
        inner_loss: Inner loss f, which is called as ``inner_loss(module, batch)`` and returns such a scalar, too.
        average: Differentiable function from tensors to their means over the processes, for batches that are split
            over several processes. It is applied to losses, gradients and Hessian products, which are linear in the
            data, so that every process computes the estimate of the whole batch.

    Raises:
        ValueError: If there are no outer or no inner variables, or an outer variable is not such a leaf tensor.

    Example:
        >>> import torch
        >>> a, module = torch.tensor(2.0, requires_grad=True), torch.nn.Linear(3, 1)
        >>> problem = BilevelProblem(
        ...     module, [a], lambda module, x: module(x).mean(), lambda module, x: (module(x) - a).square().mean()
        ... )
        >>> [tuple(parameter.shape) for parameter in problem.inner_parameters]
        [(1, 3), (1,)]
    """

    module: nn.Module
    outer_parameters: Sequence[Tensor]
    outer_loss: Loss
    inner_loss: Loss
    average: Average = tuple

    def __post_init__(self) -> None:
        if not self.outer_parameters or not self.inner_parameters:
            raise ValueError("a bilevel problem needs an outer parameter and a module parameter that requires grad")
        owned = {id(tensor) for tensor in (*self.module.parameters(), *self.module.buffers())}
        for index, parameter in enumerate(self.outer_parameters):
            if not parameter.is_leaf or not parameter.requires_grad:
                raise ValueError(f"outer parameter {index} is not a leaf tensor that requires grad")
            if id(parameter) in owned:
                raise ValueError(f"outer parameter {index} is a parameter or buffer of the module; keep it outside")

    @property
    def inner_parameters(self) -> tuple[nn.Parameter, ...]:
        """The inner variables w, in the order of ``module.parameters()``."""
        return tuple(parameter for parameter in self.module.parameters() if parameter.requires_grad)
