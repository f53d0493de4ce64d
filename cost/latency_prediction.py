"""How well the table of a device predicts the time of networks: predicted against measured, for a sample of a space."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ..genotypes import Genotype
from ..operators import build_network
from ..runtime.device import device_name, select_device
from ..runtime.memory import keep_freed_memory
from ..runtime.seeds import derive_seed
from ..runtime.terminal import print_table
from ..search.search_config import SearchConfig
from .latency import measure_space
from .latency_table import table_path


@dataclass(frozen=True)
class Prediction:
    """Networks of a search space with their predicted and their measured time.

    Attributes:
        networks: the sample.
        predicted: milliseconds of each, by the table.
        measured: milliseconds of each.
        device: in words.
        table: the file that keeps the table.
    """

    networks: list[Genotype]
    predicted: list[float]
    measured: list[float]
    device: str
    table: Path

    @property
    def correlation(self) -> float:
        """Spearman's rank correlation; not a number where all networks are predicted or measured alike."""
        return rank_correlation(self.predicted, self.measured)

    @property
    def median_error(self) -> float:
        """The median of the errors, as fractions of the measured times."""
        return median(abs(error) for error in self.errors)

    @property
    def errors(self) -> list[float]:
        """How far each prediction lies above (or, negative, below) what was measured, as a fraction of that."""
        return [predicted / time - 1 for predicted, time in zip(self.predicted, self.measured, strict=True)]


def check_prediction(config: SearchConfig, networks: int, *, fresh: bool = False) -> Prediction:
    """Predict and measure networks drawn from a search space, all with the same chance.

    Args:
        config: holds the space, the size of the images, the device, and the seed of the sample.
        networks: how many, at least 1.
        fresh: measure the operators anew, although the table has them.

    Returns:
        What came of it.

    Raises:
        UserError: there is no such device, or its table cannot be read or written.
    """
    keep_freed_memory()
    device = select_device(config.device)
    space, height, width = config.space, config.cost.height, config.cost.width
    draw = random.Random(derive_seed(config.seed, "prediction", 0))
    choices = [
        [[draw.randrange(len(space.operators)) for _ in range(space.steps)] for _ in space.cells]
        for _ in range(networks)
    ]
    sample = [
        space.genotype(f"network {number}", config.task, [[space.operators[index] for index in row] for row in cells])
        for number, cells in enumerate(choices, start=1)
    ]
    model, _, measured = measure_space(
        space.bare,
        space.operators,
        height,
        width,
        device,
        known={} if fresh else None,
        beside=[build_network(genotype) for genotype in sample],
    )
    return Prediction(sample, [model.of(cells) for cells in choices], measured, device_name(device), table_path(device))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlate the ranks of two rows of numbers, equal ones sharing the mean of theirs (Spearman).

    Args:
        first: at least one number.
        second: as many.

    Returns:
        From -1 to 1; not a number where all numbers of a row are equal.
    """
    ranks = torch.stack([_ranks(first), _ranks(second)])
    deviations = ranks - ranks.mean(1, keepdim=True)
    covariance = deviations @ deviations.T
    return float(covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt())


def _ranks(values: Sequence[float]) -> Tensor:
    numbers = torch.tensor(values, dtype=torch.float64)
    below, equal = (compare(numbers[:, None], numbers).sum(1) for compare in (torch.gt, torch.eq))
    return below + (equal.double() + 1) / 2


def print_prediction(prediction: Prediction) -> None:
    """Print a row for each network, by rising measured time, and how well they were predicted.

    Args:
        prediction: The result of `check_prediction`.
    """
    titles = [f"cell {index} ({cell.kind})" for index, cell in enumerate(prediction.networks[0].cells, start=1)]
    found = zip(prediction.measured, prediction.predicted, prediction.errors, prediction.networks, strict=True)
    rows = []
    for measured, predicted, error, genotype in sorted(found, key=lambda row: row[0]):
        operators = [", ".join(cell.operators) for cell in genotype.cells]
        rows.append([*operators, f"{predicted:.2f}", f"{measured:.2f}", f"{error:+.1%}"])
    print_table(titles, ["predicted ms", "measured ms", "error"], rows)
    correlation = f"rank correlation {prediction.correlation:.3f}, median error {prediction.median_error:.1%}"
    print(f"{correlation}, on {prediction.device}")
    print(f"table     {prediction.table}")
