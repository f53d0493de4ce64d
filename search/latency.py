"""The time of operators on this device, and the expected time of a mixture as a term of the outer loss."""

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from ..genotypes import CellGenotype, Genotype
from ..operators import build_network, build_operator
from ..runtime.device import device_name
from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.progress import Progress
from ..runtime.yaml_text import dump_yaml, parse_yaml

WARMUP_RUNS = 2
MEASURED_RUNS = 7
Table = dict[str, float]  # "operator channels height width norm" -> milliseconds


def measure(forward: Callable[[], object], device: torch.device) -> float:
    """Measure a forward pass: warmed up, synchronised, the median of several runs.

    Args:
        forward: what to measure; runs in inference mode.
        device: where it runs.

    Returns:
        Milliseconds, to the tenth of a microsecond.
    """
    milliseconds = []
    with torch.inference_mode():
        for _ in range(WARMUP_RUNS + MEASURED_RUNS):
            _synchronise(device)
            start = time.perf_counter()
            forward()
            _synchronise(device)
            milliseconds.append(1e3 * (time.perf_counter() - start))
    return round(median(milliseconds[WARMUP_RUNS:]), 4)


def measure_network(network: nn.Module, height: int, width: int, device: torch.device) -> float:
    """Measure a fusion network in evaluation mode on one pair.

    Args:
        network: called as network(first, second).
        height: of the images, in pixels.
        width: of the images, in pixels.
        device: where the network is.

    Returns:
        Milliseconds.
    """
    first, second = torch.rand(2, 1, 1, height, width, device=device)
    training = network.training
    network.eval()
    try:
        return measure(lambda: network(first, second), device)
    finally:
        network.train(training)


def cell_shapes(kind: str, channels: int, height: int, width: int) -> list[tuple[int, int, int]]:
    """List (channels, height, width) of the features on which a cell runs its operators."""
    if kind == "multi_scale":
        return [(channels * scale, -(-height // scale), -(-width // scale)) for scale in (1, 2, 4)]
    return [(channels, height, width)] * (2 if kind == "decomposition" else 1)


def table_path(device: torch.device) -> Path:
    """Return where the latency table of a device is cached for later searches."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    slug = "".join(letter if letter.isalnum() else "-" for letter in device_name(device))
    return cache / "timfuse" / f"latency-{slug}.yaml"


def load_table(path: Path, device: torch.device) -> Table:
    """Read a table; an absent one is empty.

    Args:
        path: the YAML file.
        device: which the table must have been measured on.

    Returns:
        Milliseconds by operator and shape.

    Raises:
        UserError: the file is damaged or belongs to another device.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; delete it and it is measured anew") from None
    except UnicodeDecodeError:
        text = ""
    content = parse_yaml(text, str(path))
    table = content.get("milliseconds") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not all(
        type(value) in (int, float) and 0 <= value < math.inf for value in table.values()
    ):
        raise UserError(f"{path} is not a latency table; delete it and it is measured anew")
    if content.get("device") != device_name(device):
        raise UserError(f"{path} was measured on {content.get('device')}, not on {device_name(device)}; delete it")
    return {key: float(value) for key, value in table.items()}


def save_table(path: Path, table: Table, device: torch.device) -> None:
    """Write a table with the name of its device."""
    content = {"device": device_name(device), "milliseconds": dict(sorted(table.items()))}
    write_atomically(path, dump_yaml(content))


class LatencyModel:
    """LAT(p) = fixed + sum over edges and candidates of p times the candidate's measured time.

    (ProxylessNAS, Cai et al., ICLR 2019, eq. 6.)

    Args:
        table: milliseconds by operator and shape; what is missing is measured and added.
        cells: kind of each cell.
        operators: ids of the candidates.
        channels: C, feature maps between stem and head.
        norm: "batch", "group" or "none".
        stem: "full" or "half".
        head: "direct" or "envelope".
        height: of the images, in pixels.
        width: of the images, in pixels.
        device: where to measure.
    """

    def __init__(
        self,
        table: Table,
        *,
        cells: Sequence[str],
        operators: Sequence[str],
        channels: int,
        norm: str,
        stem: str,
        head: str,
        height: int,
        width: int,
        device: torch.device,
    ) -> None:
        shrink = 2 if stem == "half" else 1
        shapes = {kind: cell_shapes(kind, channels, height // shrink, width // shrink) for kind in cells}
        todo = {(name, shape) for row in shapes.values() for shape in row for name in operators}
        missing = sorted(key for key in todo if _key(*key, norm) not in table)
        rest_key = f"rest of {' '.join(cells)} {channels} {norm} {stem} {head} {height} {width}"
        with Progress(len(missing) + 1, "measuring latency") as progress:
            for name, shape in missing:
                operator = build_operator(name, shape[0], norm).to(device).eval()
                x = torch.rand(1, *shape, device=device).to(memory_format=torch.channels_last)
                table[_key(name, shape, norm)] = measure(partial(operator, x), device)
                progress.advance(name)
            if rest_key not in table:
                genotype = Genotype(
                    name="rest",
                    task="infrared-visible",
                    network="fusion",
                    channels=channels,
                    cells=tuple(CellGenotype(kind, ("identity",)) for kind in cells),
                    norm=norm,
                    stem=stem,
                    head=head,
                )
                table[rest_key] = measure_network(build_network(genotype).to(device), height, width, device)
            progress.advance("the rest of the network")
        self.rest = table[rest_key]
        self.costs = torch.tensor(
            [[sum(table[_key(name, shape, norm)] for shape in shapes[kind]) for name in operators] for kind in cells],
            device=device,
        )  # (cells, candidates)

    def expected(self, probabilities: Tensor) -> Tensor:
        """Return the expected milliseconds of a forward pass under (cells, steps, candidates) probabilities."""
        return self.rest + (probabilities * self.costs.unsqueeze(1)).sum()


def latency_term(milliseconds: Tensor, weight: float, budget: float | None) -> Tensor:
    """Return the cost of a latency: weight LAT, or with a budget weight max(0, LAT / budget - 1).

    Args:
        milliseconds: scalar.
        weight: lambda, at least 0.
        budget: milliseconds, above 0, or None.

    Returns:
        Scalar.
    """
    return weight * (milliseconds if budget is None else (milliseconds / budget - 1).clamp_min(0))


def _key(operator: str, shape: tuple[int, int, int], norm: str) -> str:
    return " ".join(map(str, (operator, *shape, norm)))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
