"""The supernet's training step against the obvious form, and a search iteration in units of that step.

Run: python -m benchmarks.supernet (from the root of the repository, with timfuse installed).
"""

import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from timfuse.data import PairBatch
from timfuse.objectives.named_losses import NAMED_LOSSES
from timfuse.operators import FusionNetwork, build_supernet
from timfuse.operators.activation import PReLU
from timfuse.operators.mixture import SMALLEST_PROBABILITY, MixedOperator
from timfuse.operators.primitives import Depthwise, Pointwise
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.memory import keep_freed_memory
from timfuse.search import SearchConfig
from timfuse.search.search_setup import SearchParts, set_up
from timfuse.search.search_step import search_step
from timfuse.search.space_section import PRESETS

ROUNDS = 15
OPERATORS = PRESETS["tim"].operators  # 10 candidates


class PlainConvolution(nn.Conv2d):
    """torch's convolution, with the factor of the dense block applied to the output."""

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        y = super().forward(x)
        return y if scale is None else y * scale


class PlainMixture(nn.Module):
    """One module per candidate and a weighted sum."""

    def __init__(self, mixture: MixedOperator) -> None:
        super().__init__()
        self.candidates = mixture.candidates

    def forward(self, x: Tensor, probabilities: Tensor) -> Tensor:
        return sum(p * candidate(x) for p, candidate in zip(probabilities, self.candidates, strict=True))


class PlainSupernet(nn.Module):
    """The same supernet as anyone would write it: contiguous NCHW, torch's own layers, no folding."""

    def __init__(self, supernet: FusionNetwork) -> None:
        super().__init__()
        self.stem, self.cells, self.head = copy.deepcopy((supernet.stem, supernet.cells, supernet.head))
        for part in list(self.modules()):
            if isinstance(part, Depthwise | Pointwise):
                part.__class__ = PlainConvolution
            elif isinstance(part, PReLU):
                part.__class__ = nn.PReLU
            for name, child in part.named_children():
                if isinstance(child, MixedOperator):
                    setattr(part, name, PlainMixture(child))
        self.to(memory_format=torch.contiguous_format)

    def forward(self, first: Tensor, second: Tensor, probabilities: Tensor) -> Tensor:
        x = self.stem(torch.cat((first, second), 1))
        for cell, rows in zip(self.cells, probabilities, strict=True):
            x = cell(x, rows)
        return self.head(x)


class EveryCandidate(MixedOperator):
    """A mixture that computes every candidate with a graph, whatever its probability."""

    def _plus(self, total: Tensor, plain: Sequence[int], x: Tensor, probabilities: Tensor) -> Tensor:
        for index, operator in enumerate(self.candidates):
            scale = probabilities[index] + SMALLEST_PROBABILITY
            if index in plain:
                total = total + operator(x) * scale
            elif index not in self.plain:
                total = total + operator(x, scale)
        return total


def batch() -> tuple[Tensor, Tensor]:
    first, second = torch.rand(2, 4, 1, 64, 64)
    return first, second


def loss(logits: Tensor, network: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    return network(*pair, logits.softmax(-1)).sub(torch.maximum(*pair)).square().mean()


def training_step(network: nn.Module, logits: Tensor, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(logits, network, pair), [*network.parameters(), logits])


def search_iteration(estimator: str, mixture: type[MixedOperator] = MixedOperator) -> Callable[[bool], object]:
    """Return a function that does one step of the search's recipe, updates included: of weights alone or of both."""
    config = SearchConfig.model_validate({"device": "cpu", "search": {"estimator": estimator}})
    state = set_up(config, torch.device("cpu"))
    for module in state.supernet.modules():
        if isinstance(module, MixedOperator):
            module.__class__ = mixture
    batches = [PairBatch(*batch()), PairBatch(*batch())]
    parts = SearchParts(None, NAMED_LOSSES["saliency-outer"], NAMED_LOSSES["saliency"], None, ALONE)
    return lambda both: search_step(config, state, parts, batches[0], batches[1] if both else None)


def interleaved(actions: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Time the actions in turn, so that a drift of the machine's speed reaches all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for round_ in range(ROUNDS + 2):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if round_ >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, unit: str) -> float:
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[unit], strict=True))


def peak_bytes(action: Callable[[], object]) -> int:
    """Return the most bytes that tensors made by an action occupy at a time."""
    action()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    live = peak = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def obvious_in_a_stock_process() -> None:
    torch.manual_seed(0)
    supernet = build_supernet(channels=16, cells=["successive"] * 2, steps=2, candidates=OPERATORS)
    logits = torch.randn(2, 2, len(OPERATORS)).mul(0.5).requires_grad_()
    plain, pair = PlainSupernet(supernet), batch()
    seconds = interleaved({"obvious": lambda: training_step(plain, logits, pair)})["obvious"]
    print(1e3 * statistics.median(seconds))


def main() -> None:
    stock = subprocess.run(
        [sys.executable, "-m", "benchmarks.supernet", "obvious"], capture_output=True, text=True, check=True
    )
    keep_freed_memory()
    torch.manual_seed(0)
    supernet = build_supernet(channels=16, cells=["successive"] * 2, steps=2, candidates=OPERATORS)
    logits = torch.randn(2, 2, len(OPERATORS)).mul(0.5).requires_grad_()
    plain, pair = PlainSupernet(supernet), batch()
    with torch.no_grad():
        probabilities = logits.softmax(-1)
        difference = (supernet(*pair, probabilities) - plain(*pair, probabilities)).abs().max().item()
    first_order, gauss_newton = search_iteration("first_order"), search_iteration("gauss_newton")
    every_candidate = search_iteration("first_order", EveryCandidate)
    unit = "weight step of the search"
    seconds = interleaved(
        {
            "gradients, obvious form": lambda: training_step(plain, logits, pair),
            "gradients": lambda: training_step(supernet, logits, pair),
            unit: lambda: gauss_newton(False),
            "weight step, every candidate": lambda: every_candidate(False),
            "search iteration, first_order": lambda: first_order(True),
            "first_order, every candidate": lambda: every_candidate(True),
            "search iteration, gauss_newton": lambda: gauss_newton(True),
        }
    )
    peaks = {
        unit: peak_bytes(lambda: gauss_newton(False)),
        "search iteration, gauss_newton": peak_bytes(lambda: gauss_newton(True)),
    }
    table = Table(
        title=f"2 successive cells x 2 steps x 10 candidates, C=16, 4 x 64 x 64, {torch.get_num_threads()} threads"
    )
    for column in ("what", "median ms", "in weight steps", "peak MB", "peak in weight steps"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, values in seconds.items():
        peak = peaks.get(name)
        table.add_row(
            name,
            f"{1e3 * statistics.median(values):.1f}",
            f"{ratio(seconds, name, unit):.2f}",
            f"{peak / 2**20:.1f}" if peak else "",
            f"{peak / peaks[unit]:.3f}" if peak else "",
        )
    console = Console()
    console.print(table)
    gain = ratio(seconds, "gradients, obvious form", "gradients")
    console.print(f"gradients of the supernet: {gain:.2f} times faster than the obvious form in this process,")
    stock_gain = float(stock.stdout) / (1e3 * statistics.median(seconds["gradients"]))
    console.print(f"{stock_gain:.2f} times faster than in a stock process ({float(stock.stdout):.0f} ms);")
    console.print(f"largest difference of the outputs {difference:.1e}")


if __name__ == "__main__":
    obvious_in_a_stock_process() if sys.argv[1:] == ["obvious"] else main()
