"""The latency model of a search space: the time of its parts on a device, measured where the cache lacks them."""

from collections.abc import Sequence
from functools import partial
from itertools import chain, product

import torch
from torch import Tensor, nn

from ..genotypes import ALL_OPERATORS
from ..operators import build_network, build_operator
from ..operators.cells import Chain
from ..runtime.progress import Progress
from .cost_model import CostModel
from .deployment_target import DeploymentTarget
from .latency import ROUNDS
from .latency_table import LatencyTable, latency_table_path, load_latency_table, merge_latency_table
from .search_space import SearchSpace

# Runs of an operator at a time, so that starting and waiting for the device counts as little as in a network.
CHAINED = 4

_REST = "rest"
# A registered operator is not kept in the cache: next time another one may have its name.
_CACHED = frozenset((*ALL_OPERATORS, _REST))


def measure_costs(
    space: SearchSpace,
    target: DeploymentTarget,
    *,
    table: LatencyTable | None = None,
    networks: Sequence[nn.Module] = (),
) -> tuple[CostModel, LatencyTable, list[float]]:
    """Measure the parts of a search space that a table lacks, and add them to the cache of the device.

    Args:
        table: Milliseconds of parts; None for those in the cache.
        networks: Whole networks to measure in the same rounds.

    Returns:
        The model, in milliseconds; the complete table that it is made of; and the milliseconds of each network.

    Raises:
        UserError: If the cache cannot be read or written.
    """
    device, cache = target.device, latency_table_path(target.device)
    table = load_latency_table(cache, device) if table is None else dict(table)
    cells = [kind if level is None else f"{kind}@{level}" for kind, level in space.places]
    channels = "-".join(map(str, space.bare.widths))
    size = f"{channels} {space.norm} {space.stem} {space.head} {target.width}x{target.height}"
    rest = f"{_REST} {' '.join(cells)} {size}"
    bare = build_network(space.bare)
    inputs = _inputs_of_operators(target.prepare(bare), *target.pair)
    missing = {} if rest in table else {rest: target.forward_pass(bare)}
    for name, x in product(space.operators, chain.from_iterable(inputs)):
        key = _key(name, x, space.norm)
        if key not in table and key not in missing:
            operator = target.prepare(Chain([build_operator(name, x.shape[1], space.norm)]))
            missing[key] = partial(_run_chained, operator, x)
    times: list[float] = []
    if missing or networks:
        passes = [*missing.values(), *map(target.forward_pass, networks)]
        with Progress(ROUNDS * len(passes), "measuring latency", unit="visits") as progress:
            times = target.measure(passes, progress)
        for key, milliseconds in zip(missing, times, strict=False):
            table[key] = milliseconds if key == rest else round(milliseconds / CHAINED, 4)
    merge_latency_table(cache, {key: table[key] for key in missing if key.split()[0] in _CACHED}, device)
    candidates = [[sum(table[_key(name, x, space.norm)] for x in xs) for name in space.operators] for xs in inputs]
    model = CostModel("ms", table[rest], torch.tensor(candidates, dtype=torch.float64))
    return model, table, times[len(missing) :]


def _key(operator: str, x: Tensor, norm: str) -> str:
    return f"{operator} {'x'.join(map(str, x.shape[1:]))} {norm}"


def _run_chained(operator: nn.Module, x: Tensor) -> None:
    for _ in range(CHAINED):
        x = operator(x)


def _inputs_of_operators(network: nn.Module, first: Tensor, second: Tensor) -> list[list[Tensor]]:
    """Return for each cell what its operators get, (1, C, H, W): one tensor for each of its scales or bands."""

    def record(inputs: list[Tensor], module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0].clone(memory_format=torch.preserve_format))

    cells: list[list[Tensor]] = []
    hooks = []
    for cell in network.get_submodule("cells").children():
        inputs: list[Tensor] = []
        cells.append(inputs)
        chains = (module for module in cell.modules() if isinstance(module, Chain))
        hooks += [module.register_forward_pre_hook(partial(record, inputs)) for module in chains]
    with torch.inference_mode():
        network(first, second)
    for hook in hooks:
        hook.remove()
    return cells
