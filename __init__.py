"""timfuse finds, pre-trains, adapts and runs compact image-fusion networks."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .deploy import Fuser

__version__ = "0.1.0"


def load(name_or_path: str | Path, device: str = "auto") -> "Fuser":
    """Load a trained network that fuses images: `timfuse.load("ivif")(first, second)`.

    Args:
        name_or_path: The name of a network that comes with timfuse, or the folder of a run.
        device: "auto" (the first CUDA device, or else the CPU), "cpu", "cuda", "cuda:1", ... or "mps".

    Returns:
        A function of two images; `timfuse.deploy.Fuser` tells of which kinds.

    Raises:
        UserError: There is no such network or device, or the network's files are not whole.
    """
    from .deploy import load as load_fuser  # here, because importing timfuse is to be quick

    return load_fuser(name_or_path, device)
