"""A table of trained networks of the default space: searches can be judged by it without trainings.

`benchmarks/tabular.py` trains the networks: random ones of three costs, each with several seeds, by one recipe, for
infrared-visible pairs. What is found here holds for this space, this task and this length of training.
"""

import csv
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from ..cost.latency_prediction import rank_correlation
from ..genotypes import CellGenotype, Genotype
from ..runtime.errors import UserError
from ..runtime.terminal import print_table

FILE = Path(__file__).with_name("benchmark.csv")
BUDGETS = (0.5, 1.0, 2.0)
"""The costs of the networks in GFLOPs at 640x480, within 5 %."""

METRICS = ("VIF", "Qabf", "SCD", "SSIM", "MEF-SSIM", "smear")
_REPETITIONS = 2000
_TRAININGS = 8  # of networks in a simulated search, as many as a verification proposes

Score = Callable[["TrainedNetwork"], float]


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with what its trainings came to.

    Attributes:
        genotype: The network; its name, task and provenance are placeholders.
        budget: The cost in `BUDGETS` that it is near.
        gflops: Its operations on a pair of 640x480, in billions.
        losses: Loss on the validation pairs after so many steps, for each seed.
        metrics: Metrics of `METRICS` on the validation pairs after the last step, for each seed.
    """

    genotype: Genotype
    budget: float
    gflops: float
    parameters: int
    losses: Mapping[int, Sequence[float]]
    metrics: Mapping[str, Sequence[float]]

    @property
    def final(self) -> Sequence[float]:
        """The loss after the last step, for each seed."""
        return self.losses[max(self.losses)]

    @property
    def loss(self) -> float:
        """The loss after the last step, averaged over the seeds."""
        return mean(self.final)


@lru_cache
def trained_networks() -> tuple[TrainedNetwork, ...]:
    """Read all networks of the table.

    Example:
        >>> len(trained_networks()) > 100
        True
    """
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["channels"], row["stages"]), []).append(row)
    return tuple(_network(*key, rows) for key, rows in found.items())


def _network(channels: str, stages: str, rows: Sequence[Mapping[str, str]]) -> TrainedNetwork:
    widths = tuple(map(int, channels.split("-")))
    levels = [level for level, width in enumerate(widths) if width]
    cells = tuple(
        CellGenotype("stage", tuple(blocks.split(",")), level=level)
        for level, blocks in zip(levels, stages.split("|"), strict=True)
    )
    genotype = Genotype("network", "infrared-visible", "pyramid", widths, cells, "none", "half", "bands")
    first = rows[0]
    gflops = float(first["gflops"])
    steps = [int(name.removeprefix("loss_")) for name in first if name.startswith("loss_")]
    return TrainedNetwork(
        genotype,
        min(BUDGETS, key=lambda budget: abs(math.log(budget / gflops))),
        gflops,
        int(first["parameters"]),
        {count: [float(row[f"loss_{count}"]) for row in rows] for count in steps},
        {name: [float(row[name]) for row in rows] for name in METRICS},
    )


def query(genotype: Genotype) -> TrainedNetwork:
    """Look up what the trainings of a network came to.

    Args:
        genotype: A pyramid network of stages; its name, task and provenance do not matter.

    Raises:
        UserError: If the network is not in the table.

    Example:
        >>> network = trained_networks()[0]
        >>> query(network.genotype).loss == network.loss
        True
    """
    for network in trained_networks():
        if (network.genotype.channels, network.genotype.cells) == (genotype.channels, genotype.cells):
            return network
    raise UserError(
        f"{genotype.name} is none of the {len(trained_networks())} networks in the benchmark; "
        "timfuse.search.benchmark.trained_networks() lists them"
    )


@dataclass(frozen=True)
class Reliability:
    """How far the ranks of a table can be trusted.

    Attributes:
        spread: Standard deviation of the networks' mean losses.
        noise: Standard deviation of a network's loss over its seeds, but for what a seed, which draws the same crops
            for all, does to all networks of a cost alike.
        agreement: Spearman's rank correlation of the mean losses over two halves of the seeds, averaged over halves.
    """

    networks: int
    spread: float
    noise: float
    agreement: float


def reliability(networks: Sequence[TrainedNetwork]) -> Reliability:
    """Measure how far the ranks of some networks can be trusted.

    Example:
        >>> reliability(trained_networks()).agreement > 0.8
        True
    """
    seeds = range(len(networks[0].final))
    agreements = []
    for half in combinations(seeds, len(seeds) // 2):
        other = [seed for seed in seeds if seed not in half]
        agreements.append(
            rank_correlation(
                [mean(network.final[seed] for seed in half) for network in networks],
                [mean(network.final[seed] for seed in other) for network in networks],
            )
        )
    return Reliability(
        len(networks),
        stdev(network.loss for network in networks),
        _noise(networks),
        mean(agreements),
    )


def _noise(networks: Sequence[TrainedNetwork]) -> float:
    """Return the standard deviation of a loss from the sum of what the network and the seed do at its cost."""
    squares, freedom = 0.0, 0
    for budget in {network.budget for network in networks}:
        losses = np.array([network.final for network in networks if network.budget == budget])  # (networks, seeds)
        rest = losses - losses.mean(0) - losses.mean(1, keepdims=True) + losses.mean()
        squares += float(np.sum(rest**2))
        freedom += (losses.shape[0] - 1) * (losses.shape[1] - 1)
    return math.sqrt(squares / freedom)


@dataclass(frozen=True)
class Explanation:
    """How much of the differences between networks operations and the finest level explain.

    Attributes:
        share: Fraction of the variance of the mean losses that is linear in the logarithm of the operations and in
            whether the finest level is there.
        rest: Standard deviation of what is left.
        noise: Standard deviation of a mean loss that the seeds alone make, as in `Reliability`.
    """

    share: float
    rest: float
    noise: float


def explanation(networks: Sequence[TrainedNetwork]) -> Explanation:
    """Measure how much of the differences between networks operations and the finest level explain.

    Example:
        >>> found = explanation(trained_networks())
        >>> found.share > 0.95
        True
    """
    losses = np.array([network.loss for network in networks])
    causes = [[1.0, math.log(network.gflops), float(network.genotype.widths[0] > 0)] for network in networks]
    coefficients = np.linalg.lstsq(np.array(causes), losses, rcond=None)[0]
    rest = float(np.sum((losses - causes @ coefficients) ** 2))
    return Explanation(
        1 - rest / float(np.sum((losses - losses.mean()) ** 2)),
        math.sqrt(rest / (len(losses) - len(coefficients))),
        _noise(networks) / math.sqrt(len(networks[0].final)),
    )


@dataclass(frozen=True)
class Judgement:
    """How good a way to score networks is.

    Attributes:
        correlation: Spearman's rank correlation of its scores and the mean losses, averaged over the costs.
        found: Loss of the best of the few networks that it prefers at each cost, once they are trained with one seed,
            averaged over the costs.
        quantile: Fraction of the networks of the same cost that are better than that, averaged over the costs.
    """

    correlation: float
    found: float
    quantile: float


def judge(score: Score) -> Judgement:
    """Judge a way to score networks, the lower the better, by the networks of each cost.

    Of each cost the 8 networks that it prefers are trained, with a seed drawn at random, and the best one is taken.

    Example:
        >>> judge(lambda network: network.loss).correlation
        1.0
    """
    generator = random.Random(0)
    correlations, founds, quantiles = [], [], []
    for budget in BUDGETS:
        networks = [network for network in trained_networks() if network.budget == budget]
        scores = [score(network) for network in networks]
        truths = [network.loss for network in networks]
        constant = len(set(scores)) == 1
        correlations.append(0.0 if constant else rank_correlation(scores, truths))
        for _ in range(_REPETITIONS):
            # Equal scores in random order, so that a constant one is the random search.
            order = sorted(range(len(networks)), key=lambda index: (scores[index], generator.random()))
            preferred = [networks[index] for index in order[:_TRAININGS]]
            seed = generator.randrange(len(preferred[0].final))
            best = min(preferred, key=lambda network: network.final[seed])
            founds.append(best.loss)
            quantiles.append(sum(truth < best.loss for truth in truths) / len(truths))
    return Judgement(mean(correlations), mean(founds), mean(quantiles))


def print_benchmark(scores: Mapping[str, Score]) -> None:
    """Print how far the table can be trusted, and how good some ways to score networks are.

    Args:
        scores: Functions that score a network, the lower the better, by name.

    Example:
        >>> print_benchmark({"random": lambda network: 0.0})  # doctest: +SKIP
    """
    rows = []
    for words, networks in {
        "all": trained_networks(),
        **{f"{budget} GFLOPs": [each for each in trained_networks() if each.budget == budget] for budget in BUDGETS},
    }.items():
        trust = reliability(networks)
        numbers = [f"{trust.spread:.4f}", f"{trust.noise:.4f}", f"{trust.spread / trust.noise:.1f}"]
        rows.append([words, str(trust.networks), *numbers, f"{trust.agreement:.2f}"])
    print_table(["networks of"], ["number", "spread", "noise", "ratio", "agreement of halves of the seeds"], rows)
    found = explanation(trained_networks())
    print(
        f"Operations and whether the finest level is there explain {found.share:.0%} of the differences between the"
        f" networks. What is left has a standard deviation of {found.rest:.4f}, the noise of a mean over seeds one of"
        f" {found.noise:.4f}; so blocks and widths make about {math.sqrt(max(found.rest**2 - found.noise**2, 0)):.4f}."
    )
    judged = {name: judge(score) for name, score in scores.items()}
    rows = [
        [name, f"{each.correlation:.2f}", f"{each.found:.4f}", f"{each.quantile:.0%}"] for name, each in judged.items()
    ]
    print_table([f"best of {_TRAININGS} preferred by"], ["rank correlation", "loss", "better networks"], rows)
