"""The latency model of a search space: the time of its parts on a device, measured where the cache lacks them."""

from collections.abc import Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn

from ..genotypes import ALL_OPERATORS, Genotype
from ..operators import build_network, build_operator
from ..operators.cells import Blocks, Chain
from ..runtime.progress import Progress
from .cost_model import CostModel, networks_of_parts, sum_of_parts
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
    searched = bool(space.width_options)
    rests = {_rest(space, bare, target): bare for bare in (networks_of_parts(space) if searched else [space.bare()])}
    # The operators of all levels at their widths of one index.
    whole = [space.bare(widths) for widths in zip(*space.width_options, strict=True)] if searched else [space.bare()]
    inputs = [_inputs_of_operators(build_network(bare), target) for bare in whole]
    missing = {key: target.forward_pass(build_network(bare)) for key, bare in rests.items() if key not in table}
    for bare, of_cells in zip(whole, inputs, strict=True):
        for cell, xs in zip(bare.cells, of_cells, strict=True):
            for name, x in product(space.operators, xs):
                key = _key(name, x, space.norm, cell.kind)
                if key not in table and key not in missing:
                    operators = [build_operator(name, x.shape[1], space.norm)]
                    chain = Blocks(operators) if cell.kind == "stage" else Chain(operators)
                    missing[key] = partial(_run_chained, target.prepare(chain), x)
    times: list[float] = []
    if missing or networks:
        passes = [*missing.values(), *map(target.forward_pass, networks)]
        with Progress(ROUNDS * len(passes), "measuring latency", unit="visits") as progress:
            times = target.measure(passes, progress)
        for key, milliseconds in zip(missing, times, strict=False):
            table[key] = milliseconds if key in rests else round(milliseconds / CHAINED, 4)
    merge_latency_table(cache, {key: table[key] for key in missing if key.split()[0] in _CACHED}, device)
    rows = []
    for bare, of_cells in zip(whole, inputs, strict=True):
        sums = {
            (cell.kind, cell.level): [
                sum(table[_key(name, x, space.norm, cell.kind)] for x in xs) for name in space.operators
            ]
            for cell, xs in zip(bare.cells, of_cells, strict=True)
        }
        # A cell that the network lacks takes no time.
        rows.append([sums.get(place, [0.0] * len(space.operators)) for place in space.places])
    measured = [table[key] for key in rests]
    candidates = torch.tensor(rows, dtype=torch.float64)
    model = (
        CostModel("ms", sum_of_parts(space, measured), candidates.transpose(0, 1), space.levels)
        if searched
        else CostModel("ms", measured[0], candidates[0])
    )
    return model, table, times[len(missing) :]


def _rest(space: SearchSpace, bare: Genotype, target: DeploymentTarget) -> str:
    places = [cell.source if cell.level is None else cell.level for cell in bare.cells]
    cells = [
        cell.kind if place is None else f"{cell.kind}@{place}" for cell, place in zip(bare.cells, places, strict=True)
    ]
    channels = "-".join(map(str, bare.widths))
    size = f"{channels} {space.norm} {space.stem} {space.merge or space.head} {target.width}x{target.height}"
    return f"{_REST} {' '.join(cells)} {size}"


def _key(operator: str, x: Tensor, norm: str, kind: str) -> str:
    block = " block" if kind == "stage" else ""  # which is added to its input
    return f"{operator} {'x'.join(map(str, x.shape[1:]))} {norm}{block}"


def _run_chained(operator: nn.Module, x: Tensor) -> None:
    for _ in range(CHAINED):
        x = operator(x)


def _inputs_of_operators(network: nn.Module, target: DeploymentTarget) -> list[list[Tensor]]:
    """Return for each cell what its operators get, (1, C, H, W): one tensor for each of its scales or bands."""

    def record(inputs: list[Tensor], module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0].clone(memory_format=torch.preserve_format))

    cells: list[list[Tensor]] = []
    prepared = target.prepare(network)
    lists = [part for name, part in prepared.named_children() if name.endswith("cells")]  # two of a refine network
    for cell in (cell for part in lists for cell in part.children()):
        inputs: list[Tensor] = []
        cells.append(inputs)
        for module in cell.modules():
            if isinstance(module, Chain):
                module.register_forward_pre_hook(partial(record, inputs))
    with torch.inference_mode():
        prepared(*target.images_for(network))
    return cells
