"""Trained networks in folders: those that come with timfuse, and those that runs write."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ..genotypes import Genotype, load_genotype, save_genotype
from ..genotypes.choices import nearest
from ..runtime.errors import UserError
from ..runtime.run_files import GENOTYPE_FILE, WEIGHTS_FILE
from ..runtime.weights import load_into, save_weights
from .build import build_network
from .hub_networks import find_on_hub, is_hub_name

SHIPPED = Path(__file__).parent / "weights"


def shipped_names() -> tuple[str, ...]:
    """List the trained networks that come with timfuse, sorted.

    Example:
        >>> shipped_names()[:3]
        ('ivif', 'ivif-fast', 'ivif-nano')
    """
    return folders_with(GENOTYPE_FILE, SHIPPED)


def shipped_for(task: str) -> str:
    """Name the trained network that comes with timfuse for a task.

    Raises:
        UserError: If there is none.

    Example:
        >>> shipped_for("infrared-visible")
        'ivif'
    """
    name = "ivif" if task == "infrared-visible" else task
    if name not in shipped_names():
        raise UserError(f"no network for {task} comes with timfuse; name one that you have trained by --network")
    return name


def find_network(name_or_path: str | Path) -> Path:
    """Find the folder of a trained network, without checking its files.

    Args:
        name_or_path: A name that `shipped_names` lists, or a folder with `genotype.yaml` and `weights.safetensors`,
            such as a run folder. Where both exist, the shipped network is found; write "./ivif" for the folder. Or a
            name on the hub, as for `find_on_hub`, which downloads it.

    Raises:
        UserError: If there is neither a shipped network nor a folder of this name, or the hub does not have it.
    """
    if isinstance(name_or_path, str) and is_hub_name(name_or_path):
        return find_on_hub(name_or_path)
    return find_shipped(name_or_path, SHIPPED, shipped_names(), what="network", run="run")


def folders_with(name: str, root: Path) -> tuple[str, ...]:
    """List the folders in `root` that have a file or folder `name`, sorted."""
    folders = root.iterdir() if root.is_dir() else ()
    return tuple(sorted(folder.name for folder in folders if (folder / name).exists()))


def find_shipped(name_or_path: str | Path, root: Path, names: Sequence[str], *, what: str, run: str) -> Path:
    """Find a folder that comes with timfuse by its name, or any other folder by its path.

    Args:
        name_or_path: One of `names`, or the path of a folder. The names have precedence, except over a `Path`.

    Raises:
        UserError: If there is no such folder.
    """
    if name_or_path in names:
        return root / name_or_path
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    known = f", or one of {', '.join(names)}" if names else ""
    raise UserError(
        f"no {what} {str(name_or_path)!r}{nearest(str(name_or_path), names)}: give the folder of a {run}{known}"
    )


def load_network_folder(folder: Path) -> tuple[Genotype, nn.Module]:
    """Load a folder with `genotype.yaml` and `weights.safetensors`, such as a run folder, onto the CPU.

    Returns:
        The genotype, and the network with its weights, in training mode.

    Raises:
        UserError: If a file is missing or damaged, or the weights belong to another genotype.

    Example:
        >>> genotype, network = load_network_folder(find_network("ivif-fast"))
        >>> genotype.name, sum(parameter.numel() for parameter in network.parameters())
        ('ivif-fast', 105141)
    """
    genotype = load_genotype(folder)
    network = build_network(genotype)
    load_into(network, folder)
    return genotype, network


def save_network_folder(folder: Path, genotype: Genotype, network: nn.Module) -> None:
    """Write a network to a folder: first the weights, then the genotype, which marks the folder as complete.

    Raises:
        UserError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_network_folder(Path(folder), *load_network_folder(find_network("ivif")))
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['genotype.yaml', 'weights.safetensors']
    """
    save_weights(folder / WEIGHTS_FILE, network.state_dict(), {"genotype": genotype.name})
    save_genotype(genotype, folder / GENOTYPE_FILE)
