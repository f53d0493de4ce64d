"""Checks before a training whether its batches fit into the memory."""

import torch
from torch import Tensor

from ..genotypes import Genotype
from ..runtime.memory import check_memory
from .build import WIDE, build_network

_SMALL = 2**22  # pixels of a batch that are not worth the time of counting
_SIDE = 64  # of the images on which is counted


def check_training_memory(genotype: Genotype, *, crops: int, crop: int, device: torch.device) -> None:
    """Refuse batches for whose backward pass a network would have to remember more than there is memory.

    Args:
        crops: Number of crops that are computed at a time.
        crop: Their height and width in pixels.
        device: Where the network is trained.

    Raises:
        UserError: If they do not fit into the memory.

    Example:
        >>> from timfuse.genotypes import load_genotype
        >>> check_training_memory(load_genotype("ivif"), crops=8, crop=96, device=torch.device("cpu"))
    """
    if crops * crop**2 <= _SMALL and max(genotype.widths) <= WIDE:
        return
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    # The meta device computes shapes only.
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network = build_network(genotype)
        result = network(*torch.empty(genotype.inputs, 1, 1, _SIDE, _SIDE))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    del result  # until here, what it refers to has addresses of its own
    # The weights have gradients and, in an optimiser like Adam, two moments.
    needed = 4 * weights + max(sum(kept.values()) - weights, 0) * crops * crop**2 / _SIDE**2
    there = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    what = f"training on {crops} crops of {crop}x{crop} pixels at a time"
    check_memory(needed, what, "lower data.crop, or the number of crops, or of the network's channels", there)
