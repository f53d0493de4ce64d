"""Trained networks in folders: those that come with timfuse, and the folders of runs."""

from pathlib import Path

from torch import Tensor, nn

from ..downstream.guiding_detectors import GuidingDetectors, load_guiding_detectors
from ..genotypes import Genotype
from ..operators import load_network_folder, receptive_field
from ..operators.inference import for_inference
from ..operators.network_folders import find_network
from ..operators.networks import SIZE_MULTIPLE
from ..runtime.errors import UserError
from ..runtime.run_files import DETECTORS_FOLDER, FIRST_STAGE_FOLDER, GENOTYPE_FILE, WEIGHTS_FILE


class TrainedNetwork(nn.Module):
    """A network that fuses two sources, or a refine network after its first stage, rewritten for inference.

    Args:
        genotype: Of the network.
        network: With its weights.
        first_stage: What a refine network refines the output of.
        detectors: Whose attention modulates a network that is not a refine network.
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
        """Fuse two aligned luma images.

        Args:
            first: (N, 1, H, W) in [0, 1], any H and W.
            second: (N, 1, H, W) in [0, 1].

        Returns:
            The fused image (N, 1, H, W), not clipped.
        """
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
        """The distance in pixels over which it looks (see `receptive_field`), None if that is the whole image."""
        own = receptive_field(self.genotype)
        before = next((part.reach for part in (self.first_stage, self.detectors) if part is not None), 0)
        return None if own is None or before is None else own + before

    @property
    def multiple(self) -> int:
        """The number of pixels to a multiple of which it pads heights and widths."""
        stem = 2 * SIZE_MULTIPLE if self.genotype.stem == "half" else SIZE_MULTIPLE
        return max([stem, *(part.multiple for part in (self.first_stage, self.detectors) if part is not None)])


def load_network(name_or_path: str | Path) -> TrainedNetwork:
    """Load a trained network onto the CPU.

    Args:
        name_or_path: A name that `shipped_names` lists, or a folder with a `genotype.yaml` and its
            `weights.safetensors`, such as a run's; that of a refine network also has them in `first_stage/`, that of
            a network that the attention of detectors modulates has these in `detectors/`.
            A shipped name goes first; write "./ivif" for a folder of that name.

    Returns:
        The network.

    Raises:
        UserError: There is no such network, or its files are not whole or do not belong together.
    """
    return _load(find_network(name_or_path))


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
            f"{folder} holds a refine network without what it refines; put the first stage's {GENOTYPE_FILE} and"
            f" {WEIGHTS_FILE} into {folder / FIRST_STAGE_FOLDER}"
        )
    return TrainedNetwork(genotype, network, _load(folder / FIRST_STAGE_FOLDER))
