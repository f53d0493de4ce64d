"""Task networks by name, in the folders of runs, and those that come with timfuse."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..genotypes.choices import nearest
from ..runtime.errors import UserError
from ..runtime.run_files import SPECIFICATION_FILE, TASK_FOLDER
from ..runtime.weights import load_into
from .detector import CompactDetector
from .network import TaskNetwork
from .pretrained import from_specification
from .specification import keep_network, read_specification
from .transformers_detection import TransformersDetector
from .transformers_segmentation import TransformersSegmenter, segformer_tiny

SHIPPED = Path(__file__).parent / "weights"
_OWN = {"detection": "compact", "segmentation": "segformer-tiny"}  # the networks that need no file


def build_task_network(kind: str, name: str, classes: Sequence[str], width: int) -> TaskNetwork:
    """Build a network for a task.

    Args:
        kind: "detection" or "segmentation".
        name: "compact", "segformer-tiny", or the name or folder of a network of transformers.
        classes: Names of the classes.
        width: Of the compact detector.

    Returns:
        The network, with fresh weights or those of the named network.

    Raises:
        UserError: There is no such network, it is for another task, or a package is missing.
    """
    if name in _OWN.values() and name != _OWN[kind]:
        raise UserError(f"task.network = {name} is not for {kind}; choose {_OWN[kind]}, or a network of transformers")
    if name == "compact":
        return CompactDetector(classes, width)
    if name == "segformer-tiny":
        return segformer_tiny(classes)
    network = TransformersDetector if kind == "detection" else TransformersSegmenter
    return network.from_pretrained(name, classes)


def keep_task_network(network: TaskNetwork, run: Path) -> None:
    """Write a task network into a run folder; the specification comes last.

    Args:
        network: With its weights.
        run: The run folder; it goes into its folder `task`.

    Raises:
        UserError: A file cannot be written.
    """
    keep_network(network, run / TASK_FOLDER)


def load_task_network(run: Path) -> TaskNetwork:
    """Load the task network of a run folder onto the CPU.

    Args:
        run: A folder into which `keep_task_network` wrote.

    Returns:
        The network in evaluation mode.

    Raises:
        UserError: The folder holds none, or its files are not whole or do not belong together.
    """
    specification = read_specification(run / TASK_FOLDER, "task network")
    try:
        kind = specification.get("kind")
        if kind == CompactDetector.kind:
            network: TaskNetwork = CompactDetector.from_specification(specification)
        else:
            network = from_specification(specification)
    except UserError as error:
        raise UserError(f"{run / TASK_FOLDER / SPECIFICATION_FILE}: {error}") from None
    load_task_weights(network, run)
    return network.eval()


def load_task_weights(network: TaskNetwork, run: Path) -> None:
    """Load weights that `keep_task_network` wrote into the same network.

    Args:
        network: The task network; untouched if the weights do not fit.
        run: The run folder.

    Raises:
        UserError: The weights cannot be read or do not fit.
    """
    load_into(network, run / TASK_FOLDER)


def shipped_detectors() -> tuple[str, ...]:
    """List the compact detectors that come with timfuse, sorted."""
    folders = SHIPPED.iterdir() if SHIPPED.is_dir() else ()
    return tuple(sorted(folder.name for folder in folders if (folder / TASK_FOLDER).is_dir()))


@torch.no_grad()
def start_from(network: TaskNetwork, name_or_path: str) -> None:
    """Give a compact detector the weights of another; classes that the other does not know start afresh.

    Args:
        network: Gets the weights.
        name_or_path: A name that `shipped_detectors` lists, or a run folder.

    Raises:
        UserError: There is no such detector, or it is of another architecture.
    """
    names = shipped_detectors()
    folder = SHIPPED / name_or_path if name_or_path in names else Path(name_or_path).expanduser()
    if not folder.is_dir():
        known = f", or {', '.join(names)}" if names else ""
        raise UserError(
            f"no task network {name_or_path!r}{nearest(name_or_path, names)}: give the folder of a `timfuse finetune`"
            f" run{known}"
        )
    specification = read_specification(folder / TASK_FOLDER, "task network")
    compact = isinstance(network, CompactDetector)
    fits = specification.get("kind") == network.kind if compact else specification == network.specification()
    if not fits:
        raise UserError(f"{folder} holds another task network; leave out task.init, or name that network")
    if not compact:
        load_task_weights(network, folder)
        return
    weights, own = load_task_network(folder).state_dict(), network.state_dict()
    theirs, width = specification["classes"], specification["width"]
    if width != network.width:
        raise UserError(
            f"{folder} holds a compact detector of width {width}, not {network.width}; set task.width to {width}, or"
            " leave out task.init"
        )
    for name in CompactDetector.class_weights:
        rows = own[name].clone()
        for row, label in enumerate(network.classes):
            if label in theirs:
                rows[row] = weights[name][theirs.index(label)]
        weights[name] = rows
    network.load_state_dict(weights)
