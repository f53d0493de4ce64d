"""The trained network whose output a refine network refines: loaded, frozen, and kept in the run folder."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..genotypes import Genotype
from ..operators import build_network, load_network_folder
from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import UserError


class FirstStage(NamedTuple):
    """A trained fusion network, in evaluation mode and without gradients."""

    genotype: Genotype
    network: nn.Module


def load_first_stage(folder: Path, ranks: Ranks = ALONE) -> FirstStage:
    """Load a trained fusion network, which the first process alone reads, and freeze it.

    Raises:
        UserError: If the folder does not hold a fusion network with its weights.
    """

    def read() -> tuple[Genotype, dict[str, Tensor]]:
        genotype, network = load_network_folder(folder)
        if genotype.network not in ("fusion", "pyramid"):
            raise UserError(f"first_stage: {folder} holds a {genotype.network} network; name a fusion network")
        return genotype, network.state_dict()

    genotype, weights = ranks.from_leader(read)
    network = build_network(genotype)
    network.load_state_dict(weights)
    return FirstStage(genotype, network.eval().requires_grad_(False))


def run_stages(network: nn.Module, first_stage: FirstStage | None, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
    """Run a network on sources (N, 1, H, W) in [0, 1], after its first stage if it has one.

    Returns:
        The fused images, (N, 1, H, W), and from a refine network the side images of both sources.
    """
    if first_stage is None:
        return (network(first, second),)
    with torch.no_grad():
        rough = first_stage.network(first, second)
    first_side, second_side, fused = network(first, second, rough)
    return fused, first_side, second_side
