"""The estimators where the answer is known: a small search for image fusion whose inner problem has a closed form.

    python -m benchmarks.estimators DIR     # infrared-visible pairs such as RoadScene; some minutes

The fused image is the sum of both sources, each through a mixture of filters; the logits of the mixtures are the
architecture, the coefficients of the filters the weights. The inner loss wants the brighter source, the outer loss, on
other pairs, mainly the stronger edges; both are squared, and the inner one decays the weights. So the best weights
w*(a) solve a linear system, and the true hypergradient is the derivative of F(a, w*(a)) in float64. Weights learn by
Adam on batches, one step for each step of the architecture, as in a search. Raw numbers go to
`benchmarks/results/estimators.csv`, the tables to `estimators.md`.
"""

import argparse
import csv
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timfuse.bilevel import ESTIMATORS, BilevelProblem
from timfuse.bilevel.gradients import loss_and_gradient
from timfuse.bilevel.options import complete_options
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.seeds import seed_everything
from timfuse.search import SearchConfig
from timfuse.search.search_config import SearchDataSection
from timfuse.search.search_setup import open_batches

RESULTS = Path(__file__).parent / "results"
FILTERS = ((1, 1), (3, 1), (3, 2), (3, 4), (5, 1), (5, 2))  # kernel and dilation
SIZES = torch.tensor([kernel**2 for kernel, _ in FILTERS] * 2)
EDGES = {"inner": 1.0, "outer": 10.0}  # weight of the edges beside the intensities
DECAY = 1e-3
CROPS, CROP, BATCH = 48, 24, 8
WEIGHT_RATE, CLIP, WARMUP = 1e-2, 5.0, 50
RATES = (0.005, 0.015, 0.05, 0.15)  # of the architecture; each estimator has the best
SEEDS = 6
BEST = "best weights"
STATES = {"50 steps": 50, "500 steps": 500, BEST: 500}  # steps of the weights before the estimate
PLAIN_STEPS = 600  # length of a search, in the time of steps of the weights alone
ROUNDS = 15

Row = dict[str, Any]


class Crops(NamedTuple):
    """Crops of both sources, (N, 1, H, W), with what the fused image should be and its differences along both axes."""

    first: Tensor
    second: Tensor
    brighter: Tensor
    edges: tuple[Tensor, Tensor]

    def drawn(self, generator: torch.Generator) -> "Crops":
        """Draw a batch."""
        chosen = torch.randperm(len(self.first), generator=generator)[:BATCH]
        return Crops(
            self.first[chosen],
            self.second[chosen],
            self.brighter[chosen],
            (self.edges[0][chosen], self.edges[1][chosen]),
        )


def differences(images: Tensor) -> tuple[Tensor, Tensor]:
    return images.diff(dim=-1), images.diff(dim=-2)


def crops_of(first: Tensor, second: Tensor) -> Crops:
    first, second = first.double(), second.double()
    pairs = zip(differences(first), differences(second), strict=True)
    edges = [torch.where(one.abs() > other.abs(), one, other) for one, other in pairs]
    return Crops(first, second, torch.maximum(first, second), (edges[0], edges[1]))


def probability_of_each(logits: Tensor) -> Tensor:
    """The probability of the filter that each weight belongs to."""
    return logits.softmax(-1).flatten().repeat_interleave(SIZES)


class Filters(nn.Module):
    """The supernet: for each source all filters, weighted by the probabilities, (2, filters)."""

    def __init__(self) -> None:
        super().__init__()
        kernels = [torch.randn(1, 1, kernel, kernel).double() / 10 for kernel, _ in FILTERS * 2]
        self.kernels = nn.ParameterList(kernels)

    def forward(self, first: Tensor, second: Tensor, probabilities: Tensor) -> Tensor:
        mixed = []
        for index, (source, p) in enumerate(zip((first, second), probabilities, strict=True)):
            kernels = list(self.kernels)[index * len(FILTERS) :]
            mixed += [
                p[place] * F.conv2d(source, kernels[place], padding=dilation * (kernel // 2), dilation=dilation)
                for place, (kernel, dilation) in enumerate(FILTERS)
            ]
        return torch.stack(mixed).sum(0)


def fusion_loss(fused: Tensor, crops: Crops, edges: float) -> Tensor:
    distances = [
        (found - wanted).square().mean() for found, wanted in zip(differences(fused), crops.edges, strict=True)
    ]
    return (fused - crops.brighter).square().mean() + edges * (distances[0] + distances[1])


class Quadratic(NamedTuple):
    """A fusion loss on all crops as u'Au - 2b'u + c, where u is each weight times the probability of its filter."""

    A: Tensor
    b: Tensor
    c: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        return u @ self.A @ u - 2 * self.b @ u + self.c


def quadratic(crops: Crops, edges: float) -> Quadratic:
    columns = []
    for source, (kernel, dilation) in itertools.product((crops.first, crops.second), FILTERS):
        unfolded = F.unfold(source, kernel, dilation=dilation, padding=dilation * (kernel // 2))
        columns.append(unfolded.unflatten(-1, source.shape[-2:]))
    responses = torch.cat(columns, 1).transpose(0, 1)  # (weights, N, H, W)
    parts = zip((responses, *differences(responses)), (crops.brighter, *crops.edges), (1.0, edges, edges), strict=True)
    A, b, c = 0.0, 0.0, 0.0
    for response, wanted, weight in parts:
        flat, target = response.flatten(1), wanted.flatten()
        scale = weight / len(target)
        A, b, c = A + scale * flat @ flat.T, b + scale * flat @ target, c + scale * target @ target
    return Quadratic(A, b, c)


class Fusion:
    """The bilevel problem of one seed: its pairs, both losses, and the closed form."""

    def __init__(self, data: Path, seed: int) -> None:
        section = SearchDataSection(root=data, crop=CROP, batch_size=CROPS)
        batches, _ = open_batches(SearchConfig(data=section, seed=seed), torch.device("cpu"), ALONE)
        inner, outer = next(batches.weight(0, 1)), next(batches.architecture(0, 1))
        self.inner, self.outer = (crops_of(batch.first, batch.second) for batch in (inner, outer))
        self.f, self.F = quadratic(self.inner, EDGES["inner"]), quadratic(self.outer, EDGES["outer"])
        generator = torch.Generator().manual_seed(seed)
        starts = [torch.zeros(2, len(FILTERS)).double()]
        starts += [torch.randn(2, len(FILTERS), generator=generator).double() for _ in range(4)]
        self.least = min(self.minimise(start) for start in starts)
        self.start = self.true_loss(starts[0]).item()

    def best_weights(self, p: Tensor) -> Tensor:
        """Solve for the weights, given the probability of the filter of each."""
        system = p[:, None] * self.f.A * p + DECAY * torch.eye(len(p)).double()
        return torch.linalg.solve(system, p * self.f.b)

    def true_loss(self, logits: Tensor) -> Tensor:
        """The outer loss of the best weights."""
        p = probability_of_each(logits)
        return self.F(p * self.best_weights(p))

    def true_gradient(self, logits: Tensor) -> Tensor:
        a = logits.detach().requires_grad_()
        return torch.autograd.grad(self.true_loss(a), a)[0]

    def minimise(self, logits: Tensor) -> float:
        a = logits.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([a], max_iter=500, line_search_fn="strong_wolfe")

        def closure() -> float:
            a.grad = self.true_gradient(a)
            return self.true_loss(a.detach()).item()

        optimizer.step(closure)
        return self.true_loss(a.detach()).item()


class Search:
    """The weights, the logits and their optimisers."""

    def __init__(self, fusion: Fusion, seed: int, rate: float = RATES[0]) -> None:
        seed_everything(seed)
        self.fusion, self.module = fusion, Filters()
        self.logits = torch.zeros(2, len(FILTERS)).double().requires_grad_()
        self.weight_optimizer = torch.optim.Adam(self.module.parameters(), lr=WEIGHT_RATE)
        self.optimizer = torch.optim.Adam([self.logits], lr=rate, betas=(0.5, 0.999))
        self.generator = torch.Generator().manual_seed(seed)
        self.problem = BilevelProblem(self.module, [self.logits], self.outer_loss, self.inner_loss)

    def outer_loss(self, module: nn.Module, crops: Crops) -> Tensor:
        return fusion_loss(module(crops.first, crops.second, self.logits.softmax(-1)), crops, EDGES["outer"])

    def inner_loss(self, module: nn.Module, crops: Crops) -> Tensor:
        fused = module(crops.first, crops.second, self.logits.softmax(-1))
        decay = torch.stack([kernel.square().sum() for kernel in module.kernels]).sum()
        return fusion_loss(fused, crops, EDGES["inner"]) + DECAY * decay

    def estimate(self, name: str, outer: Crops, inner: Crops) -> tuple[Tensor, Iterable[Tensor] | None]:
        if name == "exact":
            return self.fusion.true_gradient(self.logits), None
        options = complete_options(name, {}, self.weight_optimizer, CLIP)
        estimate = ESTIMATORS[name](self.problem, outer, inner, **options)
        return estimate.outer[0], estimate.inner

    def step(self, name: str | None = None) -> None:
        """Step the weights and, with an estimator, the logits."""
        inner, f_w = self.fusion.inner.drawn(self.generator), None
        if name is not None:
            self.logits.grad, f_w = self.estimate(name, self.fusion.outer.drawn(self.generator), inner)
        if f_w is None:
            loss = self.inner_loss(self.module, inner)
            f_w = loss_and_gradient(loss, self.problem.inner_parameters, tuple)[1]
        for weight, gradient in zip(self.module.parameters(), f_w, strict=True):
            weight.grad = gradient
        nn.utils.clip_grad_norm_(self.module.parameters(), CLIP)
        self.weight_optimizer.step()
        if name is not None:
            self.optimizer.step()


def measure_costs(fusion: Fusion) -> list[Row]:
    """Time a step of both with each estimator, in turn with steps of the weights alone."""
    searches = {name: Search(fusion, 0) for name in (None, *ESTIMATORS)}
    seconds: dict[str | None, list[float]] = defaultdict(list)
    for turn, (name, search) in itertools.product(range(ROUNDS + 3), searches.items()):
        start = time.perf_counter()
        for _ in range(4):
            search.step(name)
        if turn >= 3:
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name in ESTIMATORS:
        ratios = [own / plain for own, plain in zip(seconds[name], seconds[None], strict=True)]
        rows.append({"part": "cost", "estimator": name, "plain steps": statistics.median(ratios)})
    return rows


def measure_errors(fusion: Fusion, seed: int) -> list[Row]:
    """Compare each estimate with the truth at random logits, on all crops and on a batch."""
    rows: list[Row] = []
    for state, steps in STATES.items():
        search = Search(fusion, seed)
        search.logits.data = torch.randn(search.logits.shape, generator=search.generator).double()
        for _ in range(steps):
            search.step()
        if state == BEST:  # with the moments of the steps before, as late in a training
            best = fusion.best_weights(probability_of_each(search.logits.detach()))
            nn.utils.vector_to_parameters(best, search.module.parameters())
        truth = fusion.true_gradient(search.logits)
        batch = fusion.outer.drawn(search.generator), fusion.inner.drawn(search.generator)
        drawn = {"all": (fusion.outer, fusion.inner), "batch": batch}
        for (crops, data), name in itertools.product(drawn.items(), ESTIMATORS):
            gradient = search.estimate(name, *data)[0]
            rows.append(
                {
                    "part": "error",
                    "estimator": name,
                    "seed": seed,
                    "state": state,
                    "crops": crops,
                    "cosine": F.cosine_similarity(gradient.flatten(), truth.flatten(), 0).item(),
                    "relative error": ((gradient - truth).norm() / truth.norm()).item(),
                }
            )
    return rows


def search_all(fusion: Fusion, seed: int, lengths: Mapping[str, int]) -> list[Row]:
    """Search with each estimator for the same time; also note what was reached when the slowest had ended."""
    rows, shortest = [], min(lengths.values())
    for (name, steps), rate in itertools.product(lengths.items(), RATES):
        search = Search(fusion, seed, rate)
        for _ in range(WARMUP):
            search.step()
        gains = {}
        for done in range(1, steps + 1):
            search.step(name)
            if done in (shortest, steps):
                reached = fusion.true_loss(search.logits.detach()).item()
                gains[done] = (fusion.start - reached) / (fusion.start - fusion.least)
        rows.append(
            {
                "part": "search",
                "estimator": name,
                "seed": seed,
                "rate": rate,
                "steps": steps,
                "gain": gains[steps],
                "gain of equal steps": gains[shortest],
            }
        )
    return rows


def spread(values: Iterable[float]) -> str:
    values = list(values)
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def error_table(rows: list[Row], costs: Mapping[str, float]) -> list[str]:
    columns = list(itertools.product(STATES, ("all", "batch")))
    titles = [f"{state}, {'all crops' if crops == 'all' else 'a batch'}" for state, crops in columns]
    lines = [f"| estimator | {' | '.join(titles)} | a step in plain steps |", "|---" * (len(columns) + 2) + "|"]
    for name in ESTIMATORS:
        cells = []
        for state, crops in columns:
            found = [row for row in rows if (row["estimator"], row["state"], row["crops"]) == (name, state, crops)]
            medians = (statistics.median(row[key] for row in found) for key in ("cosine", "relative error"))
            cells.append(" / ".join(f"{median:.2f}" for median in medians))
        lines.append(f"| `{name}` | {' | '.join(cells)} | {costs[name]:.2f} |")
    return lines


def at_best_rate(rows: list[Row], name: str, score: str) -> list[Row]:
    tried = [[row for row in rows if (row["estimator"], row["rate"]) == (name, rate)] for rate in RATES]
    return max(tried, key=lambda found: statistics.fmean(row[score] for row in found))


def search_table(rows: list[Row]) -> list[str]:
    scores = ("gain", "gain of equal steps")
    lines = [
        "| estimator | rate | steps | gain | lead over first_order | gain of equal steps | lead |",
        "|---" * 7 + "|",
    ]
    for name in (*ESTIMATORS, "exact"):
        cells = []
        for score in scores:
            own, other = (at_best_rate(rows, each, score) for each in (name, "first_order"))
            leads = (row[score] - reference[score] for row, reference in zip(own, other, strict=True))
            cells += [spread(row[score] for row in own), spread(leads)]
        row = at_best_rate(rows, name, scores[0])[0]
        lines.append(f"| `{name}` | {row['rate']} | {row['steps']} | {' | '.join(cells)} |")
    return lines


def report(rows: list[Row]) -> str:
    parts = {part: [row for row in rows if row["part"] == part] for part in ("cost", "error", "search")}
    costs = {row["estimator"]: row["plain steps"] for row in parts["cost"]}
    lines = [
        "# The estimators where the true hypergradient is known",
        "",
        "`python -m benchmarks.estimators DIR`",
        "",
        f"Cosine to the truth / relative error, medians of {SEEDS} seeds, after steps of the weights or with the best"
        " ones; and the time of a step of weights and architecture.",
        "",
        *error_table(parts["error"], costs),
        "",
        f"Searches that take as long as {PLAIN_STEPS} plain steps, each estimator at its best of {len(RATES)} rates."
        " Gain is the part reached of what the architecture can lower the true outer loss by; means of"
        f" {SEEDS} seeds ± their deviation. Equal steps are those of the slowest. `exact` is the truth, for as many"
        " steps as `first_order`.",
        "",
        *search_table(parts["search"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    started = time.perf_counter()
    problems = [Fusion(data, seed) for seed in range(SEEDS)]
    rows = measure_costs(problems[0])
    lengths = {row["estimator"]: round(PLAIN_STEPS / row["plain steps"]) for row in rows}
    lengths["exact"] = lengths["first_order"]
    for seed, fusion in enumerate(problems):
        rows += [*measure_errors(fusion, seed), *search_all(fusion, seed, lengths)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with (RESULTS / "estimators.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = report(rows)
    (RESULTS / "estimators.md").write_text(text, encoding="utf-8")
    print(text, f"\n{time.perf_counter() - started:.0f} seconds")


if __name__ == "__main__":
    main()
