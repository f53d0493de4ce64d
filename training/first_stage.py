"""The trained network whose output a refine network refines: loaded, frozen, and kept in the run folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..genotypes import Genotype
from ..objectives import FusionLoss
from ..operators import build_network, load_network_folder, save_network_folder
from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import UserError
from ..runtime.run_files import FIRST_STAGE_FOLDER, GENOTYPE_FILE


class FirstStage(NamedTuple):
    """A trained fusion network, in evaluation mode and without gradients."""

    genotype: Genotype
    network: nn.Module

    def keep(self, run: Path) -> None:
        """Write it into the run folder of the network that refines its output."""
        save_network_folder(run / FIRST_STAGE_FOLDER, self.genotype, self.network)


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


def open_first_stage(
    genotype: Genotype, folder: Path | None, *, run: Path, resume: bool, ranks: Ranks = ALONE
) -> FirstStage | None:
    """Load the first stage of a network, if it is a refine network.

    Args:
        folder: The run folder of its first stage; None for no first stage.
        run: The run folder of the network.
        resume: Whether the run goes on from a checkpoint, if there is one; it then keeps its own first stage.

    Raises:
        UserError: If a refine network has no folder, another network has one, or the folder cannot be used.
    """
    if genotype.network == "refine" and folder is None:
        raise UserError(
            f"{genotype.name} is a refine network: give first_stage, the run folder of the trained network it refines"
        )
    if folder is None:
        return None
    if genotype.network != "refine":
        raise UserError(f"{genotype.name} is no refine network, and so has no first_stage; leave that out")
    own = run / FIRST_STAGE_FOLDER
    started = resume and (own / GENOTYPE_FILE).is_file()
    return load_first_stage(own if started else folder.expanduser(), ranks)


def run_stages(
    network: nn.Module, first_stage: FirstStage | None, first: Tensor, second: Tensor, *probabilities: Tensor
) -> tuple[Tensor, ...]:
    """Run a network on sources (N, 1, H, W) in [0, 1], after its first stage if it has one.

    Args:
        probabilities: Those of the decisions of a supernet.

    Returns:
        The fused images, (N, 1, H, W), and from a refine network the side images of both sources.
    """
    if first_stage is None:
        return (network(first, second, *probabilities),)
    with torch.no_grad():
        rough = first_stage.network(first, second)
    first_side, second_side, fused = network(first, second, rough, *probabilities)
    return fused, first_side, second_side


def loss_of_stages(
    loss: FusionLoss, images: Sequence[Tensor], first: Tensor, second: Tensor, side_weight: float
) -> Tensor:
    """Return the fusion loss of the images of `run_stages`, with the distances of side images from their sources."""
    fused, *sides = images
    value = loss(fused.to(first.dtype), first, second)
    for side, source in zip(sides, (first, second), strict=False):
        value = value + side_weight * (side.to(source.dtype) - source).abs().mean()
    return value
