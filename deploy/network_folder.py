"""Trained networks in folders: those that come with timfuse, and the folders of runs."""

from pathlib import Path

from torch import Tensor, nn

from ..genotypes import Genotype, load_genotype
from ..genotypes.choices import nearest
from ..operators import build_network, receptive_field
from ..operators.inference import for_inference
from ..operators.networks import SIZE_MULTIPLE
from ..runtime.errors import UserError
from ..runtime.weights import load_into

SHIPPED = Path(__file__).parent / "networks"
GENOTYPE_FILE, WEIGHTS_FILE, FIRST_STAGE = "genotype.yaml", "weights.safetensors", "first_stage"


class TrainedNetwork(nn.Module):
    """A fusion network, or a refine network after its first stage, rewritten for inference.

    Args:
        genotype: Of the network.
        network: With its weights.
        first_stage: What a refine network refines the output of.
    """

    def __init__(self, genotype: Genotype, network: nn.Module, first_stage: "TrainedNetwork | None" = None) -> None:
        super().__init__()
        self.genotype = genotype
        self.network = for_inference(network)
        self.first_stage = first_stage

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse two aligned luma images.

        Args:
            first: (N, 1, H, W) in [0, 1], any H and W.
            second: (N, 1, H, W) in [0, 1].

        Returns:
            The fused image (N, 1, H, W), not clipped.
        """
        if self.first_stage is None:
            fused: Tensor = self.network(first, second)
        else:
            _, _, fused = self.network(first, second, self.first_stage(first, second))
        return fused

    @property
    def reach(self) -> int | None:
        """The distance in pixels over which it looks (see `receptive_field`), None if that is the whole image."""
        own, before = receptive_field(self.genotype), 0 if self.first_stage is None else self.first_stage.reach
        return None if own is None or before is None else own + before

    @property
    def multiple(self) -> int:
        """The number of pixels to a multiple of which it pads heights and widths."""
        stem = 2 * SIZE_MULTIPLE if self.genotype.stem == "half" else SIZE_MULTIPLE
        return stem if self.first_stage is None else max(stem, self.first_stage.multiple)


def shipped_names() -> tuple[str, ...]:
    """List the trained networks that come with timfuse, sorted."""
    folders = SHIPPED.iterdir() if SHIPPED.is_dir() else ()
    return tuple(sorted(folder.name for folder in folders if (folder / GENOTYPE_FILE).is_file()))


def load_network(name_or_path: str | Path) -> TrainedNetwork:
    """Load a trained network onto the CPU.

    Args:
        name_or_path: A name that `shipped_names` lists, or a folder with a `genotype.yaml` and its
            `weights.safetensors`, such as a run's; that of a refine network also has them in `first_stage/`.
            A shipped name goes first; write "./ivif" for a folder of that name.

    Returns:
        The network.

    Raises:
        UserError: There is no such network, or its files are not whole or do not belong together.
    """
    names = shipped_names()
    if str(name_or_path) in names and not isinstance(name_or_path, Path):
        return _load(SHIPPED / name_or_path)
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return _load(folder)
    known = f", or one of {', '.join(names)}" if names else ""
    raise UserError(
        f"no network {str(name_or_path)!r}{nearest(str(name_or_path), names)}: give the folder of a run{known}"
    )


def _load(folder: Path) -> TrainedNetwork:
    genotype = load_genotype(folder)
    network = build_network(genotype)
    load_into(network, folder / WEIGHTS_FILE)
    if genotype.network == "fusion":
        return TrainedNetwork(genotype, network)
    if not (folder / FIRST_STAGE / GENOTYPE_FILE).is_file():
        raise UserError(
            f"{folder} holds a refine network without what it refines; put the first stage's {GENOTYPE_FILE} and"
            f" {WEIGHTS_FILE} into {folder / FIRST_STAGE}"
        )
    return TrainedNetwork(genotype, network, _load(folder / FIRST_STAGE))
