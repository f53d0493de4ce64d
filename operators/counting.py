"""How large and how costly a network is: parameters and floating-point operations."""

import copy

import torch
from torch import nn
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
        network: a fusion network (`inputs` 2) or a refine network (`inputs` 3).
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
