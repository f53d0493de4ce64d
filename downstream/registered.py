"""Task networks that users register by a decorator, such as a detector that others trained."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..operators import load_operators
from ..runtime.errors import UserError, in_one_line
from .specification import read_channels
from .task_network import TaskNetwork

Builder = TypeVar("Builder", bound=Callable[[Sequence[str]], TaskNetwork])
REGISTERED: dict[str, Callable[[Sequence[str]], TaskNetwork]] = {}


def register_task_network(name: str) -> Callable[[Builder], Builder]:
    """Register a function or a subclass of `TaskNetwork` as a task network that `downstream.network` may name.

    It takes the names of the classes and returns the network, which has the attributes `task` and `channels`, and the
    methods `predict` and `loss`. To guide fusion, `loss` has to be differentiable by the images. A network without a
    loss, which may be a program of any kind inside, scores the images of a fusion network that is trained without it,
    by the strategy "joint" with the weight 0. The weights are kept in the run folder with those of the fusion network.

    The decorator acts when Python imports the file. The command line imports the files that its option `--operators`
    names, and no others.

    Args:
        name: The name in configs and run folders, which no other network has.

    Raises:
        UserError: If the name is taken.

    Example:
        >>> import torch
        >>> from timfuse.downstream import Detections, build_task_network
        >>> @register_task_network("centre")
        ... class Centre(TaskNetwork):
        ...     task, channels = "detection", 3
        ...
        ...     def __init__(self, classes):
        ...         super().__init__()
        ...
        ...     def predict(self, images):
        ...         height, width = images.shape[-2:]
        ...         box = torch.tensor([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]])
        ...         return [Detections(box, torch.ones(1), torch.zeros(1, dtype=torch.int64)) for _ in images]
        >>> build_task_network("detection", "centre", ["person"], width=8, channels=3).classes
        ('person',)
    """

    def register(build: Builder) -> Builder:
        known = REGISTERED.get(name)
        # The same function comes again where a file is read again or a cell of a notebook is run again.
        if name in ("compact", "segformer-tiny") or (known and known.__qualname__ != build.__qualname__):
            raise UserError(f"the name {name} of a task network is taken; choose another one")
        REGISTERED[name] = build
        return build

    return register


def load_extensions(path: Path) -> None:
    """Run a Python file that registers operators or task networks; see `load_operators`.

    Raises:
        UserError: If the file cannot be read, fails or registers nothing, or an operator fails its tests.
    """
    before = dict(REGISTERED)
    names = load_operators(path, needed=False)
    if not names and before == REGISTERED:
        raise UserError(
            f'{path} registers nothing; write @register_operator("NAME") or @register_task_network("NAME") above a'
            " function or a class in it"
        )


def build_registered(task: str, name: str, classes: Sequence[str], channels: int) -> TaskNetwork:
    """Build a registered network for a task.

    Args:
        channels: Number of planes of the images that it will get.

    Raises:
        UserError: If it cannot be built, or is for another task or other images.
    """
    try:
        network = REGISTERED[name](classes)
    except Exception as error:
        raise UserError(f"the task network {name} cannot be built: {in_one_line(error)}") from error
    if not isinstance(network, TaskNetwork):
        raise UserError(f"{name} is a {type(network).__name__}; return a timfuse.downstream.TaskNetwork")
    if type(network).specification is not TaskNetwork.specification:
        raise UserError(f"{name} is a {type(network).__name__} of timfuse; set downstream.network and downstream.init")
    own = getattr(network, "task", None)
    if own != task:
        raise UserError(f"the task network {name} has task = {own!r}, not {task!r}; set this or downstream.kind")
    if network.channels != channels:
        colour = "true" if network.channels == 3 else "false"
        raise UserError(
            f"the task network {name} takes images of {network.channels} planes, not {channels}; set"
            f" downstream.colour={colour}"
        )
    network.kind, network.classes = name, tuple(classes)
    return network


def from_specification(specification: Mapping[str, Any]) -> TaskNetwork:
    """Build a registered network from its specification.

    Raises:
        UserError: If no network of its name is registered, or it cannot be built.
    """
    name, classes = str(specification.get("name")), specification.get("classes")
    if name not in REGISTERED:
        raise UserError(f"no file registers the task network {name}; name it, as in timfuse --operators FILE ...")
    if not isinstance(classes, list):
        raise UserError(f"classes must be a list of names, not {classes!r}")
    return build_registered(str(specification.get("task")), name, classes, read_channels(specification))
