"""Lists trained networks: what each is for, its size, its time on this device and its scores."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..cost.latency import ForwardPass, measure
from ..genotypes import Genotype
from ..operators import build_network, count_parameters
from ..operators.network_folders import find_network, folders_with, shipped_names
from ..runtime.errors import UserError
from ..runtime.files import read_text
from ..runtime.progress import Progress
from ..runtime.run_files import CARD_FILE, GENOTYPE_FILE, WEIGHTS_FILE
from .fuser import Fuser, load
from .model_card import as_number, read_scores

HEIGHT, WIDTH = 480, 640  # of the pair that is timed
ROUNDS = 3


class ListedNetwork(NamedTuple):
    """A trained network in a list.

    Attributes:
        name: Name or folder, as `--network` takes it.
        size: Bytes of the file of weights.
        milliseconds: Median time of a grey 640x480 pair; None with a non-local operator, which takes minutes.
        scores: Means over the validation pairs of its training, by metric; empty where nobody has written them down.
    """

    name: str
    task: str
    parameters: int
    size: int
    milliseconds: float | None
    scores: Mapping[str, float]


def list_networks(names: Sequence[str], device: str = "auto") -> tuple[list[ListedNetwork], list[str]]:
    """List networks, with times that are measured side by side.

    Args:
        names: Names and folders of networks, as for `load`, and folders that hold such folders; none for those that
            come with timfuse.
        device: Name of the device that they run on, as for `load`.

    Returns:
        The networks in the order of the names, and a line for each that cannot be loaded.

    Raises:
        UserError: If there is no such network, folder or device, or a folder holds no network.

    Example:
        >>> (network,), failed = list_networks(["ivif-nano"], "cpu")
        >>> network.name, network.task, network.parameters, failed
        ('ivif-nano', 'infrared-visible', 55583, [])
    """
    fusers: dict[str, Fuser] = {}
    failed: list[str] = []
    for name in dict.fromkeys(chain.from_iterable(map(_networks_at, names or shipped_names()))):
        try:
            fusers[name] = load(name, device)
        except UserError as error:
            failed.append(str(error))
    times = _times(fusers)
    return [_listed(name, fuser.network.genotype, times.get(name)) for name, fuser in fusers.items()], failed


def _networks_at(name: str) -> Iterator[str]:
    """Yield a network, or those in the folders of a folder."""
    folder = find_network(name)
    if (folder / GENOTYPE_FILE).is_file():
        yield name
        return
    inner = [os.path.join(name, each) for each in folders_with(WEIGHTS_FILE, folder)]
    if not inner:
        raise UserError(f"{name} holds no network; name a run, or a folder of runs")
    yield from inner


def _times(fusers: Mapping[str, Fuser]) -> dict[str, float]:
    grey = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    passes: dict[str, ForwardPass] = {
        name: partial(fuser, grey, grey) for name, fuser in fusers.items() if fuser.network.reach is not None
    }
    if not passes:
        return {}
    device = next(iter(fusers.values())).device
    with Progress(ROUNDS * len(passes), "measuring times") as progress:
        return dict(zip(passes, measure(list(passes.values()), device, progress, rounds=ROUNDS), strict=True))


def _listed(name: str, genotype: Genotype, milliseconds: float | None) -> ListedNetwork:
    folder = find_network(name)
    parameters = count_parameters(build_network(genotype))
    size = (folder / WEIGHTS_FILE).stat().st_size
    return ListedNetwork(name, genotype.task, parameters, size, milliseconds, _scores(folder, genotype))


def _scores(folder: Path, genotype: Genotype) -> Mapping[str, float]:
    """Find the scores of the weights in the provenance, or else in the card; strangers may have written both."""
    found: Any = genotype.provenance
    for key in ("metrics", "best", "mean"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if isinstance(found, Mapping):
        return {name: score for name, value in found.items() if math.isfinite(score := as_number(value))}
    card = folder / CARD_FILE
    try:
        return read_scores(read_text(card)) if card.is_file() else {}
    except UserError:  # it is no text
        return {}
