"""A trained network with the networks that it depends on, rewritten for use."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from ..downstream.guiding_detectors import GuidingDetectors, load_guiding_detectors
from ..genotypes import Genotype
from ..operators import load_network_folder, receptive_field
from ..operators.hub_networks import is_hub_name
from ..operators.inference import for_inference
from ..operators.network_folders import find_network
from ..runtime.errors import UserError
from ..runtime.run_files import DETECTORS_FOLDER, FIRST_STAGE_FOLDER, GENOTYPE_FILE, WEIGHTS_FILE


class TrainedNetwork(nn.Module):
    """A network that fuses two sources, or a refine network with its first stage, rewritten by `for_inference`.

    Args:
        first_stage: The network whose output a refine network refines.
        detectors: Detectors whose attention modulates a network that is not a refine network.
    """

    def __init__(
        self,
        genotype: Genotype,
        network: nn.Module,
        first_stage: "TrainedNetwork | None" = None,
        detectors: GuidingDetectors | None = None,
    ) -> None:
        super().__init__()
        self.genotype = genotype
        self.network = for_inference(network)
        self.first_stage = first_stage
        self.detectors = None if detectors is None else for_inference(detectors.attention_alone())

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse two aligned luma images (N, 1, H, W) in [0, 1] to one of the same shape, not clipped."""
        fused: Tensor
        if self.first_stage is not None:
            _, _, fused = self.network(first, second, self.first_stage(first, second))
        elif self.detectors is not None:
            fused = self.network(first, second, attention=self.detectors.attention(first, second))
        else:
            fused = self.network(first, second)
        return fused

    @property
    def reach(self) -> int | None:
        """The receptive field of all parts in pixels; None if it is the whole image."""
        own = receptive_field(self.genotype)
        before = next((part.reach for part in (self.first_stage, self.detectors) if part is not None), 0)
        return None if own is None or before is None else own + before

    @property
    def multiple(self) -> int:
        """The number of pixels to whose multiples heights and widths are padded."""
        own = self.network.multiple
        assert isinstance(own, int)
        return max([own, *(part.multiple for part in (self.first_stage, self.detectors) if part is not None)])


def load_network(name_or_path: str | Path) -> TrainedNetwork:
    """Load a trained network onto the CPU.

    Args:
        name_or_path: Name or folder of the network, as for `find_network`. The folder of a refine network has its first
            stage in `first_stage/`, and that of a network that detectors modulate has these in `detectors/`. The
            provenance of a network of the hub gets the key "hub": its name with the commit, which loads the same again.

    Raises:
        UserError: If there is no such network, or a file is missing, damaged or does not fit the others.

    Example:
        >>> load_network("ivif-fast").multiple
        16
    """
    folder = find_network(name_or_path)
    trained = _load(folder)
    if isinstance(name_or_path, str) and is_hub_name(name_or_path):
        pinned = f"{name_or_path.partition('@')[0]}@{folder.name}"
        trained.genotype = replace(trained.genotype, provenance={**trained.genotype.provenance, "hub": pinned})
    return trained


def _load(folder: Path) -> TrainedNetwork:
    genotype, network = load_network_folder(folder)
    detectors = load_guiding_detectors(folder) if (folder / DETECTORS_FOLDER).is_dir() else None
    if genotype.network != "refine":
        return TrainedNetwork(genotype, network, detectors=detectors)
    if detectors is not None:
        raise UserError(
            f"{folder} holds a refine network, which no attention modulates; remove {folder / DETECTORS_FOLDER}, or put"
            f" it into {folder / FIRST_STAGE_FOLDER}"
        )
    if not (folder / FIRST_STAGE_FOLDER / GENOTYPE_FILE).is_file():
        raise UserError(
            f"{folder} holds a refine network without first stage; put {GENOTYPE_FILE} and {WEIGHTS_FILE} of the first"
            f" stage into {folder / FIRST_STAGE_FOLDER}"
        )
    return TrainedNetwork(genotype, network, _load(folder / FIRST_STAGE_FOLDER))
