"""timfuse finds, pre-trains, adapts and runs compact image-fusion networks."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .deploy import Fuser

__version__ = "0.1.0"


def load(name_or_path: str | Path, device: str = "auto") -> "Fuser":
    """Load a trained network that fuses images.

    Args:
        name_or_path: Name of a network that comes with timfuse, a run folder, or "hub:user/name" or
            "hub:user/name@revision" for one on the Hugging Face Hub.
        device: Name of a device: "auto" (the first CUDA device, or else the CPU), "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        A network that is called with two images: arrays, pillow images or tensors; see `timfuse.deploy.Fuser`.

    Raises:
        UserError: If there is no such network or device, or a file of the network is missing or damaged.

    Example:
        >>> import numpy, timfuse
        >>> fuser = timfuse.load("ivif", "cpu")
        >>> fuser(numpy.zeros((30, 40), numpy.uint8), numpy.ones((30, 40), numpy.uint8)).shape
        (30, 40)
    """
    from .deploy import load as load_fuser  # here, because the import of timfuse has to be quick

    return load_fuser(name_or_path, device)
