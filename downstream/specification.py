"""The networks of a run folder beside the fusion network, each in a folder: what it is made of, and its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.run_files import SPECIFICATION_FILE, WEIGHTS_FILE
from ..runtime.weights import save_weights
from ..runtime.yaml_text import dump_yaml, parse_yaml


class Specified(Protocol):
    """A network that says in plain data what it can be made anew from."""

    def specification(self) -> dict[str, Any]: ...

    def state_dict(self) -> dict[str, Tensor]: ...


def keep_network(network: Specified, folder: Path) -> None:
    """Write a network; the specification comes last.

    Args:
        network: With its weights.
        folder: Where its two files go.

    Raises:
        UserError: A file cannot be written.
    """
    specification = network.specification()
    save_weights(folder / WEIGHTS_FILE, network.state_dict(), {"kind": specification["kind"]})
    write_atomically(folder / SPECIFICATION_FILE, dump_yaml(specification))


def read_specification(folder: Path, what: str) -> Mapping[str, Any]:
    """Read what a network is made of.

    Args:
        folder: Into which `keep_network` wrote.
        what: What the network is, for the error.

    Returns:
        The specification.

    Raises:
        UserError: There is none, or the file is damaged.
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
