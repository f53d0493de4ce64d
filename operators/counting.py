"""Counts the parameters, the floating-point operations and the memory of a network."""

import copy
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def parameter_sizes(network: nn.Module) -> dict[str, int]:
    """Count the elements of every parameter, by its name.

    Example:
        >>> parameter_sizes(nn.Conv2d(2, 8, 3))
        {'weight': 144, 'bias': 8}
    """
    return {name: parameter.numel() for name, parameter in network.named_parameters()}


def count_parameters(network: nn.Module) -> int:
    """Count the elements of all parameters of a network.

    Example:
        >>> count_parameters(nn.Conv2d(2, 8, 3))
        152
    """
    return sum(parameter_sizes(network).values())


def count_flops(network: nn.Module, height: int, width: int, inputs: int = 2) -> int:
    """Count the floating-point operations of one forward pass on one pair, two for a multiply-add.

    Convolutions and matrix products count; pooling and elementwise operations do not. The network runs on the meta
    device, which computes shapes only.

    Args:
        network: A network that takes `inputs` images; copied, not changed.
        inputs: Number of images (1, 1, H, W): 2, or 3 for a refine network.

    Example:
        >>> from timfuse.genotypes import load_genotype
        >>> from timfuse.operators import build_network
        >>> f"{count_flops(build_network(load_genotype('tim_light')), 480, 640) / 1e9:.1f} GFLOPs"
        '77.9 GFLOPs'
    """
    return _counted_pass(network, height, width, inputs).get_total_flops()


def flops_of_modules(network: nn.Module, height: int, width: int, inputs: int = 2) -> dict[str, int]:
    """Count the floating-point operations of each module in one forward pass on one pair, as `count_flops` does.

    Args:
        network: A network that takes `inputs` images; copied, not changed.
        inputs: Number of images (1, 1, H, W): 2, or 3 for a refine network.

    Returns:
        The operations by the names of `named_modules`, those of the modules inside included; "" is the network.
    """
    counts = _counted_pass(network, height, width, inputs).get_flop_counts()
    root, flops = type(network).__name__, dict[str, int]()
    for name, module in reversed(list(network.named_modules(remove_duplicate=False))):
        counted = counts.get(f"{root}.{name}" if name else root)
        prefix = f"{name}." if name else ""
        # A list of modules is not called itself.
        inside = sum(flops[f"{prefix}{child}"] for child, _ in module.named_children())
        flops[name] = inside if counted is None else sum(counted.values())
    return flops


def _counted_pass(network: nn.Module, height: int, width: int, inputs: int) -> FlopCounterMode:
    shapes = copy.deepcopy(network).to("meta").eval()
    images = [torch.empty(1, 1, height, width, device="meta") for _ in range(inputs)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(*images)
    return counter


def count_memory(network: nn.Module, *images: Tensor) -> int:
    """Count the bytes that a forward pass without gradients needs at most at a time, without weights and inputs.

    Args:
        network: Any module; operations inside a single call to torch do not count.
        images: Inputs of the network, on the device of its weights.

    Example:
        >>> count_memory(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 1)), torch.zeros(1, 1, 8, 8))  # 4 + 1 maps
        1280
    """
    with torch.no_grad(), _LivingTensors() as tensors:
        network(*images)
    return tensors.peak


class _LivingTensors(TorchFunctionMode):
    """Records how many bytes the results of all calls to torch take while something refers to them.

    A dispatch mode sees the same tensors, but imports the compiler of torch, which takes seconds.
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
