"""From names to modules: an operator by its id, a network by its genotype, a supernet by its search space."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..genotypes import Genotype, parse_operator
from .detfusion import DetFusionNetwork
from .mixture import MixedOperator
from .networks import FusionNetwork, RefineNetwork
from .primitives import build_primitive

M = TypeVar("M", bound=nn.Module)


def _channels_last(module: M) -> M:
    """Lay out the weights as the kernels of CPU and GPU read them fastest."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_operator(name: str, channels: int, norm: str = "batch") -> nn.Module:
    """Build an operator.

    Args:
        name: id of the operator, e.g. "residual_k3_d1".
        channels: C, number of feature maps, at least 1.
        norm: "batch", "group" or "none".

    Returns:
        A module that maps (N, C, H, W) to the same shape.

    Raises:
        UserError: the id is unknown.
    """
    parsed = parse_operator(name)
    return _channels_last(build_primitive(parsed.kind, channels, parsed.kernel or 1, parsed.dilation or 1, norm))


def build_network(genotype: Genotype) -> FusionNetwork | DetFusionNetwork | RefineNetwork:
    """Build the network that a genotype describes, with fresh weights in channels-last layout.

    Args:
        genotype: what to build.

    Returns:
        A `FusionNetwork` or `DetFusionNetwork`, called as network(first, second), or a `RefineNetwork`, called as
        network(first, second, fused).
    """

    def build(name: str, channels: int) -> nn.Module:
        return build_operator(name, channels, genotype.norm)

    network: FusionNetwork | DetFusionNetwork | RefineNetwork
    if genotype.network == "fusion":
        cells = [(cell.kind, cell.operators) for cell in genotype.cells]
        network = FusionNetwork(genotype.channels, cells, genotype.norm, genotype.stem, genotype.head, build)
    elif genotype.network == "detfusion":
        network = DetFusionNetwork(genotype.channels, genotype.head)
    else:
        first, second = (
            [(cell.kind, cell.operators) for cell in genotype.cells if cell.source == source]
            for source in ("first", "second")
        )
        network = RefineNetwork(genotype.channels, first, second, genotype.norm, genotype.merge or "concat", build)
    return _channels_last(network)


def build_supernet(
    *,
    channels: int,
    cells: Sequence[str],
    steps: int,
    candidates: Sequence[str],
    norm: str = "batch",
    stem: str = "full",
    head: str = "direct",
) -> FusionNetwork:
    """Build a fusion network in which each operator is a mixture of all candidates.

    Args:
        channels: C, feature maps between stem and head, even.
        cells: kind of each cell, in order.
        steps: number of mixtures in each cell, at least 1.
        candidates: ids of the operators to choose from, at least 1.
        norm: "batch", "group" or "none".
        stem: "full" or "half".
        head: "direct" or "envelope".

    Returns:
        A network called as supernet(first, second, probabilities), probabilities (cells, steps, candidates).

    Raises:
        UserError: an id is unknown.
    """

    def build(_: str, channels: int) -> nn.Module:
        return MixedOperator([build_operator(name, channels, norm) for name in candidates])

    specifications = [(kind, ["mixture"] * steps) for kind in cells]
    return _channels_last(FusionNetwork(channels, specifications, norm, stem, head, build))


def inherited_weights(supernet: FusionNetwork, choices: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Pick from a supernet the weights of the network in which each mixture is one of its candidates.

    Args:
        supernet: as built by `build_supernet`.
        choices: for each cell and step, the index of the candidate to keep.

    Returns:
        A state dict that the derived network loads strictly; the tensors are the supernet's own.
    """
    weights = supernet.state_dict()
    for name, module in supernet.named_modules():
        if isinstance(module, MixedOperator):
            cell, step = int(name.split(".")[1]), int(name.split(".")[-1])
            for key in [key for key in weights if key.startswith(f"{name}.")]:
                del weights[key]
            for key, tensor in module.candidates[choices[cell][step]].state_dict(prefix=f"{name}.").items():
                weights[key] = tensor
    return weights
