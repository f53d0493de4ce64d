"""How well the latency model predicts the time of networks: predicted against measured, for a sample of a space."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ..genotypes import Genotype, in_words
from ..operators import build_network
from ..runtime.device import device_name
from ..runtime.memory import keep_freed_memory
from ..runtime.seeds import derive_seed
from ..runtime.terminal import print_table
from .deployment_target import DeploymentTarget
from .latency_model import measure_costs
from .latency_table import latency_table_path
from .search_space import Choices, SearchSpace


@dataclass(frozen=True)
class LatencyPrediction:
    """Networks of a search space with their predicted and their measured time.

    Args:
        predicted: Milliseconds of each network, by the latency model.
        measured: Milliseconds of each network, on the device.
        table: The file that keeps the measurements of the parts.

    Example:
        >>> prediction = LatencyPrediction([], [9.0, 21.0], [10.0, 20.0], "a CPU", Path("latency.yaml"))
        >>> f"{prediction.correlation:.1f} {prediction.median_error:.3f}"
        '1.0 0.075'
    """

    networks: list[Genotype]
    predicted: list[float]
    measured: list[float]
    device: str
    table: Path

    @property
    def correlation(self) -> float:
        """Spearman's rank correlation of predicted and measured times."""
        return rank_correlation(self.predicted, self.measured)

    @property
    def median_error(self) -> float:
        """The median of the absolute errors, as fractions of the measured times."""
        return median(abs(error) for error in self.errors)

    @property
    def errors(self) -> list[float]:
        """Predicted minus measured time, as fractions of the measured times."""
        return [predicted / time - 1 for predicted, time in zip(self.predicted, self.measured, strict=True)]


def check_latency_prediction(
    space: SearchSpace, target: DeploymentTarget, *, networks: int, seed: int, fresh: bool = False
) -> LatencyPrediction:
    """Predict and measure networks drawn uniformly from a search space.

    Args:
        fresh: Whether to measure the parts anew that the cache has.

    Raises:
        UserError: If the cache cannot be read or written.

    Example:
        >>> space = SearchSpace(8, ("successive",), 2, ("identity", "dense_k3_d1"))
        >>> target = DeploymentTarget(480, 640, torch.device("cpu"))
        >>> check_latency_prediction(space, target, networks=10, seed=0).correlation  # doctest: +SKIP
        0.98
    """
    keep_freed_memory()
    draw = random.Random(derive_seed(seed, "prediction", 0))
    choices = [
        Choices(
            [[draw.randrange(len(space.operators)) for _ in range(space.steps)] for _ in space.cells],
            tuple(draw.randrange(len(options)) for options in space.width_options),
        )
        for _ in range(networks)
    ]
    sample = [space.genotype(network) for network in choices]
    model, _, measured = measure_costs(
        space, target, table={} if fresh else None, networks=[build_network(genotype) for genotype in sample]
    )
    predicted = [model.predict(network) for network in choices]
    return LatencyPrediction(sample, predicted, measured, device_name(target.device), latency_table_path(target.device))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's correlation of two rows of numbers, of which equal ones share the mean of their ranks.

    It is from -1 to 1, or NaN where all numbers of a row are equal.
    """
    return torch.corrcoef(torch.stack([_ranks(first), _ranks(second)]))[0, 1].item()


def _ranks(values: Sequence[float]) -> Tensor:
    _, places, counts = torch.tensor(values, dtype=torch.float64).unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts.double() - 1) / 2)[places]


def print_latency_prediction(prediction: LatencyPrediction) -> None:
    """Print a row for each network by increasing measured time, and how well the times were predicted.

    Example:
        >>> network = SearchSpace(8, ("successive",), 1, ("identity",)).bare()
        >>> prediction = LatencyPrediction([network] * 2, [9.0, 21.0], [10.0, 20.0], "a CPU", Path("latency.yaml"))
        >>> print_latency_prediction(prediction)
        network  predicted ms measured ms  error
        identity         9.00       10.00 -10.0%
        identity        21.00       20.00  +5.0%
        rank correlation 1.000, median error 7.5%, on a CPU
        table     latency.yaml
    """
    found = zip(prediction.measured, prediction.predicted, prediction.errors, prediction.networks, strict=True)
    rows = []
    for measured, predicted, error, genotype in sorted(found, key=lambda row: row[0]):
        rows.append([in_words(genotype), f"{predicted:.2f}", f"{measured:.2f}", f"{error:+.1%}"])
    print_table(["network"], ["predicted ms", "measured ms", "error"], rows)
    correlation = f"rank correlation {prediction.correlation:.3f}, median error {prediction.median_error:.1%}"
    print(f"{correlation}, on {prediction.device}")
    print(f"table     {prediction.table}")
