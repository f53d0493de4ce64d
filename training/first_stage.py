"""The trained network whose output a refine network refines: loaded, frozen, and kept in the run folder."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..genotypes import Genotype, load_genotype, save_genotype
from ..operators import build_network
from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import UserError
from ..runtime.weights import load_into, save_weights

FOLDER = "first_stage"


def load_first_stage(folder: Path, ranks: Ranks = ALONE) -> tuple[Genotype, nn.Module]:
    """Load a trained fusion network and freeze it.

    Args:
        folder: A run folder, or anything with a `genotype.yaml` and a `weights.safetensors`.
        ranks: The processes that load it; the first one alone reads the folder.

    Returns:
        The genotype, and the network in evaluation mode without gradients.

    Raises:
        UserError: The folder does not hold a fusion network with its weights.
    """

    def read() -> tuple[Genotype, dict[str, Tensor]]:
        genotype = load_genotype(folder)
        if genotype.network != "fusion":
            raise UserError(f"first_stage: {folder} holds a {genotype.network} network; name a fusion network")
        network = build_network(genotype)
        load_into(network, folder / "weights.safetensors")
        return genotype, network.state_dict()

    genotype, weights = ranks.from_leader(read)
    network = build_network(genotype)
    network.load_state_dict(weights)
    return genotype, network.eval().requires_grad_(False)


def keep_first_stage(genotype: Genotype, network: nn.Module, run: Path) -> None:
    """Copy a first stage into a run folder, which then is whole by itself; the genotype comes last.

    Args:
        genotype: Of the first stage.
        network: The first stage.
        run: The run folder.

    Raises:
        UserError: A file cannot be written.
    """
    save_weights(run / FOLDER / "weights.safetensors", network.state_dict(), {"genotype": genotype.name})
    save_genotype(genotype, run / FOLDER / "genotype.yaml")


def fuse(network: nn.Module, first_stage: nn.Module | None, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
    """Run a network, after its first stage if it has one.

    Args:
        network: A fusion network, or a refine network.
        first_stage: What a refine network refines the output of.
        first: (N, 1, H, W) in [0, 1].
        second: (N, 1, H, W) in [0, 1].

    Returns:
        The fused image (N, 1, H, W) and, of a refine network, the side images of first and second.
    """
    if first_stage is None:
        return (network(first, second),)
    with torch.no_grad():
        rough = first_stage(first, second)
    first_side, second_side, fused = network(first, second, rough)
    return fused, first_side, second_side
