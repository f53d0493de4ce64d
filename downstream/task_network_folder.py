"""Task networks by name, in the folders of runs, and the compact detectors that come with timfuse."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..operators.network_folders import find_shipped, folders_with
from ..runtime.errors import UserError
from ..runtime.run_files import TASK_FOLDER, WEIGHTS_FILE
from ..runtime.weights import load_into
from .compact_detector import CompactDetector
from .registered import REGISTERED, build_registered, from_specification
from .specification import keep_network, load_kept, read_specification
from .task_network import REGISTERED_KIND, TaskNetwork
from .transformers_network import TransformersNetwork, segformer_tiny

SHIPPED = Path(__file__).parent / "weights"
OWN = {"detection": "compact", "segmentation": "segformer-tiny"}
"""The task networks that need no file, by their task."""


def build_task_network(
    task: str, name: str, classes: Sequence[str], width: int, init: str | None = None, channels: int = 1
) -> TaskNetwork:
    """Build a network for a task.

    Args:
        task: Kind of the task, "detection" or "segmentation".
        name: Architecture: "compact", "segformer-tiny", a name given to `register_task_network`, or the name or folder
            of a network of transformers.
        classes: Names of the classes; in segmentation the background comes first.
        width: Width of the compact detector, at least 2; other networks do not use it.
        init: Run folder or shipped detector for `start_from`; None for fresh weights, or those of the named network.
        channels: Number of planes of the images; see `TaskNetwork`.

    Raises:
        UserError: If there is no such network, it is for another task, or a package is missing.

    Example:
        >>> network = build_task_network("detection", "compact", ["person", "dog"], width=24, init="street")
        >>> network.classes
        ('person', 'dog')
    """
    if name in OWN.values() and name != OWN[task]:
        raise UserError(
            f"downstream.network = {name} is not for {task}; choose {OWN[task]}, or a network of transformers"
        )
    network: TaskNetwork
    if name == "compact":
        network = CompactDetector(classes, width, channels)
    elif name == "segformer-tiny":
        network = segformer_tiny(classes, channels)
    elif name in REGISTERED:
        network = build_registered(task, name, classes, channels)
    else:
        network = TransformersNetwork.from_pretrained(task, name, classes, channels)
    if init is not None:
        start_from(network, init)
    return network


def keep_task_network(network: TaskNetwork, run: Path) -> None:
    """Write a task network into the folder `task` of a run folder.

    Raises:
        UserError: If a file cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> run = Path(mkdtemp())
        >>> keep_task_network(CompactDetector(["person"], width=8), run)
        >>> load_task_network(run).classes
        ('person',)
    """
    keep_network(network, network.specification(), run / TASK_FOLDER)


def load_task_network(run: Path) -> TaskNetwork:
    """Load the task network of a run folder onto the CPU, in evaluation mode.

    Raises:
        UserError: If the folder holds none, or its files are not whole or do not belong together.

    Example:
        >>> load_task_network(SHIPPED / "street").classes
        ('person', 'bicycle', 'car')
    """

    def build(specification: Mapping[str, Any]) -> TaskNetwork:
        if specification.get("kind") == REGISTERED_KIND:
            return from_specification(specification)
        compact = specification.get("kind") == CompactDetector.kind
        return (CompactDetector if compact else TransformersNetwork).from_specification(specification)

    return load_kept(run / TASK_FOLDER, "task network", build).eval()


def load_task_weights(network: TaskNetwork, run: Path) -> None:
    """Load weights that `keep_task_network` wrote into a network of the same architecture; another one stays unchanged.

    Raises:
        UserError: If the weights cannot be read or do not fit.

    Example:
        >>> load_task_weights(CompactDetector(["person", "bicycle", "car"], width=24), SHIPPED / "street")
    """
    load_into(network, run / TASK_FOLDER / WEIGHTS_FILE)


def shipped_detectors() -> tuple[str, ...]:
    """List the compact detectors that come with timfuse, sorted.

    Example:
        >>> shipped_detectors()
        ('street',)
    """
    return folders_with(TASK_FOLDER, SHIPPED)


@torch.no_grad()
def start_from(network: TaskNetwork, name_or_path: str) -> None:
    """Copy the weights of a saved task network.

    A compact detector may have other classes than the saved one: the weights of common classes are copied, those of
    the others do not change. It may also see more planes than a saved one that sees luma: each gets an equal part of
    the weights. Other networks must have the same specification.

    Raises:
        UserError: If there is no such network, or it is of another architecture.

    Example:
        >>> start_from(CompactDetector(["person", "dog"], width=24), "street")
    """
    names = shipped_detectors()
    folder = find_shipped(name_or_path, SHIPPED, names, what="task network", run="`timfuse finetune` run")
    specification = read_specification(folder / TASK_FOLDER, "task network")
    compact = isinstance(network, CompactDetector)
    fits = specification.get("kind") == network.kind if compact else specification == network.specification()
    if not fits:
        raise UserError(f"{folder} holds another task network; leave out downstream.init, or name that network")
    if not compact:
        load_task_weights(network, folder)
        return
    weights, own = load_task_network(folder).state_dict(), network.state_dict()
    theirs, width = specification["classes"], specification["width"]
    if width != network.width:
        raise UserError(
            f"{folder} holds a compact detector of width {width}, not {network.width}; set downstream.width to {width},"
            " or leave out downstream.init"
        )
    first = CompactDetector.first_weight
    if weights[first].shape[1] == 1:
        weights[first] = weights[first].expand_as(own[first]) / network.channels
    elif weights[first].shape != own[first].shape:
        raise UserError(
            f"{folder} holds a compact detector for images of {weights[first].shape[1]} planes, not {network.channels};"
            " set downstream.colour as there, or leave out downstream.init"
        )
    for name in CompactDetector.class_weights:
        rows = own[name].clone()
        for row, label in enumerate(network.classes):
            if label in theirs:
                rows[row] = weights[name][theirs.index(label)]
        weights[name] = rows
    network.load_state_dict(weights)
