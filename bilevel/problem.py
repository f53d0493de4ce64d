"""A bilevel problem: two losses, the outer variables and the module that holds the inner ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Loss = Callable[[nn.Module, Any], Tensor]
Average = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class BilevelProblem:
    """Minimise F(a, w*(a)) over a, where w*(a) minimises f(a, w) over w.

    The losses take the module as an argument, so that an estimator can evaluate them at other weights.

    Args:
        module: Holds the inner variables w (its parameters that require grad) and its buffers.
        outer_parameters: The outer variables a: leaf tensors that require grad and are neither parameters nor
            buffers of ``module``.
        outer_loss: F, called as ``outer_loss(module, batch)``; returns a scalar.
        inner_loss: f, called as ``inner_loss(module, batch)``; returns a scalar.
        average: Where several processes have a part of each batch and the losses are means over it: takes tensors and
            returns their means over the processes, differentiably. Losses, gradients and Hessian products are linear in
            the data and go through it as they are taken, so that what is made of them is that of the whole batches,
            the same in every process.

    Raises:
        ValueError: If there are no outer or no inner variables, or an outer variable breaks the rule above.
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
