"""The trained fusion networks that come with timfuse, and finding one by name or folder."""

from pathlib import Path

from ..genotypes.choices import nearest
from ..runtime.errors import UserError

SHIPPED = Path(__file__).parent / "weights"
GENOTYPE_FILE, WEIGHTS_FILE = "genotype.yaml", "weights.safetensors"


def shipped_names() -> tuple[str, ...]:
    """List the trained networks that come with timfuse, sorted."""
    folders = SHIPPED.iterdir() if SHIPPED.is_dir() else ()
    return tuple(sorted(folder.name for folder in folders if (folder / GENOTYPE_FILE).is_file()))


def find_network(name_or_path: str | Path) -> Path:
    """Find the folder of a trained network.

    Args:
        name_or_path: A name that `shipped_names` lists, or a folder with a `genotype.yaml` and its
            `weights.safetensors`, such as a run's. A shipped name goes first; write "./ivif" for a folder of that name.

    Returns:
        The folder.

    Raises:
        UserError: There is no such network.
    """
    names = shipped_names()
    if str(name_or_path) in names and not isinstance(name_or_path, Path):
        return SHIPPED / name_or_path
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    known = f", or one of {', '.join(names)}" if names else ""
    raise UserError(
        f"no network {str(name_or_path)!r}{nearest(str(name_or_path), names)}: give the folder of a run{known}"
    )
