"""Networks of a run folder beside the fusion network, each in its own folder with a specification and weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.run_files import SPECIFICATION_FILE, WEIGHTS_FILE
from ..runtime.weights import load_into, save_weights
from ..runtime.yaml_text import dump_yaml, parse_yaml

Network = TypeVar("Network", bound=nn.Module)


def keep_network(network: nn.Module, specification: Mapping[str, Any], folder: Path) -> None:
    """Write the weights and then the specification of a network.

    Raises:
        UserError: If a file cannot be written.
    """
    save_weights(folder / WEIGHTS_FILE, network.state_dict(), {"kind": specification["kind"]})
    write_atomically(folder / SPECIFICATION_FILE, dump_yaml(specification))


def load_kept(folder: Path, what: str, build: Callable[[Mapping[str, Any]], Network]) -> Network:
    """Load a network that `keep_network` wrote, onto the CPU.

    Raises:
        UserError: If a file is missing or damaged, or they do not belong together.
    """
    specification = read_specification(folder, what)
    try:
        network = build(specification)
    except UserError as error:
        raise UserError(f"{folder / SPECIFICATION_FILE}: {error}") from None
    load_into(network, folder / WEIGHTS_FILE)
    return network


def read_specification(folder: Path, what: str) -> Mapping[str, Any]:
    """Read the specification of a network; arguments as for `load_kept`.

    Raises:
        UserError: If there is none, or the file is damaged.
    """
    path = folder / SPECIFICATION_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no {what}: {path} is missing; give the folder of a `timfuse finetune` run") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; get it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from None
    specification = parse_yaml(text, str(path))
    if not isinstance(specification, dict):
        raise UserError(f"{path}: does not describe a network; get it again")
    return specification


def classes_and_width(specification: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return the class names and the width of a compact detector from its specification.

    Raises:
        UserError: If the classes are not a list of names, or the width is not a whole number of at least 2.
    """
    classes, width = specification.get("classes"), specification.get("width")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) and name for name in classes):
        raise UserError(f"classes must be a list of names, like [person, car], not {classes!r}")
    if type(width) is not int or width < 2:
        raise UserError(f"width must be a whole number from 2 on, like 32, not {width!r}")
    return classes, width


def read_channels(specification: Mapping[str, Any]) -> int:
    """Return the number of planes of a task network's images from its specification; 1 where it has none.

    Raises:
        UserError: If it is not a whole number from 1 to 4.
    """
    channels = specification.get("channels", 1)
    if type(channels) is not int or not 1 <= channels <= 4:
        raise UserError(f"channels must be a whole number from 1 to 4, not {channels!r}")
    return channels
