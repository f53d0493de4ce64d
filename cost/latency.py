"""The time of networks and their operators on this device, as they run when images are fused."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import chain, product
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..data import luma_of, make_scene
from ..genotypes import ALL_OPERATORS, Genotype
from ..operators import build_network, build_operator, for_inference
from ..operators.cells import Chain
from ..runtime.progress import Progress
from .cost_model import CostModel
from .latency_table import Table, load_table, merge_table, table_path

ROUNDS = 9
FEWEST_RUNS, MOST_RUNS = 2, 5  # in a visit
VISIT_MILLISECONDS = 30.0  # that these runs may take, if there are more than the fewest
SLOW_MILLISECONDS = 2000.0  # of a run that is enough by itself
# Runs of an operator at a time, so that starting and waiting for the device counts as little as in a network.
CHAINED = 4

_REST = "rest"
_SHARED = frozenset((*ALL_OPERATORS, _REST))

Forward = Callable[[], object]


def measure(forwards: Sequence[Forward], device: torch.device, progress: Progress | None = None) -> list[float]:
    """Measure forward passes side by side, so that a busy moment of the machine falls on all of them.

    Every round visits each of them: a run that does not count, then the fastest of a few. Of the rounds the median is
    taken. A run of seconds counts by itself.

    Args:
        forwards: what to measure; they run in inference mode.
        device: where they run.
        progress: advanced `ROUNDS` times for each of them.

    Returns:
        Milliseconds of each, to the tenth of a microsecond.
    """
    times: list[list[float]] = [[] for _ in forwards]
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for forward, milliseconds in zip(forwards, times, strict=True):
                if not milliseconds or milliseconds[0] < SLOW_MILLISECONDS:
                    milliseconds.append(_visit(forward, device))
                if progress is not None:
                    progress.advance()
    return [round(median(milliseconds), 4) for milliseconds in times]


def _visit(forward: Forward, device: torch.device) -> float:
    first = _time(forward, device)
    if first >= SLOW_MILLISECONDS:
        return first
    runs = min(MOST_RUNS, max(FEWEST_RUNS, int(VISIT_MILLISECONDS / max(first, 1e-3))))
    return min(_time(forward, device) for _ in range(runs))


def _time(forward: Forward, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    forward()
    _synchronise(device)
    return 1e3 * (time.perf_counter() - start)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure_network(network: nn.Module, height: int, width: int, device: torch.device) -> float:
    """Measure a fusion network on one pair, rewritten for use as `Fuser` rewrites it.

    Args:
        network: called as network(first, second); it stays as it is.
        height: of the images, in pixels.
        width: of the images, in pixels.
        device: where to measure.

    Returns:
        Milliseconds.
    """
    return measure([_pass(network, _pair(height, width, device), device)], device)[0]


class SpaceTimes(NamedTuple):
    """What a search space takes on a device.

    Attributes:
        model: predicts networks, in milliseconds.
        table: what the model is made of.
        networks: milliseconds of the networks that were measured beside.
    """

    model: CostModel
    table: Table
    networks: list[float]


def measure_space(
    bare: Genotype,
    operators: Sequence[str],
    height: int,
    width: int,
    device: torch.device,
    *,
    known: Table | None = None,
    beside: Sequence[nn.Module] = (),
) -> SpaceTimes:
    """Measure the parts of a space's networks of which the time is not known, and keep it in the device's cache.

    What a user registered is not kept, because it may be another operator of the same name next time.

    Args:
        bare: a network of these cells, each with an identity as its only operator.
        operators: ids of the candidates.
        height: of the images, in pixels.
        width: of the images, in pixels.
        device: where to measure.
        known: milliseconds of parts; None for those of the device's cache.
        beside: networks to measure in the same rounds.

    Returns:
        The times.

    Raises:
        UserError: the cache cannot be read or written.
    """
    path, pair = table_path(device), _pair(height, width, device)
    table = load_table(path, device) if known is None else dict(known)
    size = f"{bare.channels} {bare.norm} {bare.stem} {bare.head} {width}x{height}"
    rest = f"{_REST} {' '.join(cell.kind for cell in bare.cells)} {size}"
    network = build_network(bare)
    cells = _features(_ready(network, device), *pair)
    missing = {} if rest in table else {rest: _pass(network, pair, device)}
    for name, x in product(operators, chain.from_iterable(cells)):
        key = _key(name, x, bare.norm)
        if key not in table and key not in missing:
            operator = _ready(Chain([build_operator(name, x.shape[1], bare.norm)]), device)
            missing[key] = partial(_chained, operator, x)
    networks: list[float] = []
    if missing or beside:
        forwards = [*missing.values(), *(_pass(network, pair, device) for network in beside)]
        with Progress(ROUNDS * len(forwards), "measuring latency", unit="visits") as progress:
            times = measure(forwards, device, progress)
        for key, milliseconds in zip(missing, times, strict=False):
            table[key] = milliseconds if key == rest else round(milliseconds / CHAINED, 4)
        networks = times[len(missing) :]
    merge_table(path, {key: table[key] for key in missing if key.split()[0] in _SHARED}, device)
    candidates = [[sum(table[_key(name, x, bare.norm)] for x in features) for name in operators] for features in cells]
    return SpaceTimes(CostModel("ms", table[rest], torch.tensor(candidates, dtype=torch.float64)), table, networks)


def _key(operator: str, x: Tensor, norm: str) -> str:
    return f"{operator} {'x'.join(map(str, x.shape[1:]))} {norm}"


def _chained(operator: nn.Module, x: Tensor) -> None:
    for _ in range(CHAINED):
        x = operator(x)


def _pass(network: nn.Module, pair: tuple[Tensor, Tensor], device: torch.device) -> Forward:
    return partial(_ready(network, device), *pair)


def _ready(network: nn.Module, device: torch.device) -> nn.Module:
    """Rewrite a network for use and lay it out as `Fuser` does."""
    return for_inference(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _pair(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a pair of images, (1, 1, H, W) each: on noise some operators take longer than on what is seen."""
    first, second = _rendered(height, width)
    return first.to(device), second.to(device)


@lru_cache(maxsize=1)
def _rendered(height: int, width: int) -> tuple[Tensor, Tensor]:
    scene = make_scene(0, height=height, width=width)
    return luma_of(scene.first)[None, None], luma_of(scene.second)[None, None]


def _features(network: nn.Module, first: Tensor, second: Tensor) -> list[list[Tensor]]:
    """List what reaches the operators of each cell, (1, C, H, W): for each of its scales or bands."""
    features: list[list[Tensor]] = []
    hooks = []
    for cell in network.get_submodule("cells").children():
        reaching: list[Tensor] = []
        features.append(reaching)
        hooks += [
            module.register_forward_pre_hook(partial(_note, reaching))
            for module in cell.modules()
            if isinstance(module, Chain)
        ]
    with torch.inference_mode():
        network(first, second)
    for hook in hooks:
        hook.remove()
    return features


def _note(reaching: list[Tensor], module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    reaching.append(inputs[0].clone(memory_format=torch.preserve_format))
