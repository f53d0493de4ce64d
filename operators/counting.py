"""How large and how costly a network is: parameters, floating-point operations, memory."""

import copy
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def parameter_sizes(network: nn.Module) -> dict[str, int]:
    """Return the number of elements of every parameter by its name."""
    return {name: parameter.numel() for name, parameter in network.named_parameters()}


def count_parameters(network: nn.Module) -> int:
    """Count the trainable numbers of a network."""
    return sum(parameter_sizes(network).values())


def count_flops(network: nn.Module, height: int, width: int, inputs: int = 2) -> int:
    """Count the floating-point operations of one forward pass on one image, two for a multiply-add.

    Convolutions and matrix products count, pooling and elementwise operations do not. Nothing is computed:
    only shapes pass through the network.

    Args:
        network: a network on two sources (`inputs` 2) or a refine network (`inputs` 3).
        height: of the images, in pixels.
        width: of the images, in pixels.
        inputs: number of single-channel images the network takes.

    Returns:
        The number of operations.
    """
    shapes = copy.deepcopy(network).to("meta").eval()
    images = [torch.empty(1, 1, height, width, device="meta") for _ in range(inputs)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(*images)
    return counter.get_total_flops()


def count_memory(network: nn.Module, *images: Tensor) -> int:
    """Count the bytes that the tensors made in one forward pass without gradients occupy at its largest moment.

    Args:
        network: a network.
        images: its inputs.

    Returns:
        The number of bytes, weights and inputs not included.
    """
    with torch.no_grad(), _LivingTensors() as tensors:
        network(*images)
    return tensors.peak


class _LivingTensors(TorchFunctionMode):
    """Follows how many bytes the results of all calls to torch take while they are referred to.

    A dispatch mode sees the same tensors, but loads the compiler of torch, which takes seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.peak = 0

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)}
        results = function(*arguments, **(options or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in known:
                storage = result.untyped_storage()
                self.living[id(storage)] = storage.nbytes()
                weakref.finalize(storage, self.living.pop, id(storage), None)
        self.peak = max(self.peak, sum(self.living.values()))
        return results
