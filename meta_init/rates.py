"""The adaptation of layers at their own learning rates, and the file of these rates."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..bilevel import Adaptation, layers_of
from ..bilevel.adaptation import OptimizerFactory
from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.run_files import RATES_FILE
from ..runtime.yaml_text import dump_yaml, parse_yaml

_OPTIMIZERS: dict[str, OptimizerFactory] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": partial(torch.optim.AdamW, weight_decay=1e-4),
}


def adapting_layers(network: nn.Module, part: str | None) -> dict[str, list[nn.Parameter]]:
    """List the parameters of each layer that adapts to a task, by the layer's name.

    Args:
        part: Name of the only part of the network that adapts, such as "head"; None for all of it.

    Raises:
        UserError: If there is no part of this name, or it is the whole network.
    """
    every = layers_of(network)
    if part is None:
        return every
    chosen = layers_of(network, part)
    if not chosen or len(chosen) == len(every):
        parts = sorted({name.partition(".")[0] for name in every})
        raise UserError(f"inner.layers = {part!r} must name a part of the network: {', '.join(parts)}")
    return chosen


def adaptation_of(layers: Mapping[str, list[nn.Parameter]], rates: Tensor, optimizer: str) -> Adaptation:
    """Describe the adaptation of layers at rates above 0, (layers,), by an optimiser "sgd", "adam" or "adamw"."""
    return Adaptation(tuple(layers.values()), rates, _OPTIMIZERS[optimizer])


def plain_adaptation(network: nn.Module) -> Adaptation:
    """Describe the training of random weights that adaptations are compared with: all layers by Adam at 2e-3."""
    layers, device = layers_of(network), next(network.parameters()).device
    return Adaptation(tuple(layers.values()), torch.full((len(layers),), 2e-3, device=device), torch.optim.Adam)


def save_rates(folder: Path, layers: Mapping[str, list[nn.Parameter]], rates: Tensor) -> None:
    """Write the learning rates of the layers that adapt, (layers,), to `rates.yaml` in a folder.

    Raises:
        UserError: If the file cannot be written.
    """
    write_atomically(folder / RATES_FILE, dump_yaml(dict(zip(layers, rates.tolist(), strict=True))))


def load_rates(folder: Path, layers: Mapping[str, list[nn.Parameter]]) -> Tensor:
    """Read the learning rates of the layers that adapt, (layers,), from `rates.yaml` in a folder.

    Raises:
        UserError: If the file cannot be read or belongs to another network.
    """
    path = folder / RATES_FILE
    try:
        rates = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError):
        raise UserError(f"cannot read {path}; name the folder of a finished meta-initialisation") from None
    if not isinstance(rates, dict) or list(rates) != list(layers):
        raise UserError(f"{path} does not name the layers of the network beside it; get both from one run")
    if not all(type(rate) is float and 0 < rate < float("inf") for rate in rates.values()):
        raise UserError(f"{path} must hold a positive number for each layer")
    return torch.tensor(list(rates.values()))
