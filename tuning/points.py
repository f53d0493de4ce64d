"""The points of a study: its complete trials, and how they are written."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.yaml_text import parse_yaml


@dataclass(frozen=True)
class Point:
    """A complete trial.

    Attributes:
        quality: Geometric mean of the study's metrics, to be maximised.
        cost: Cost of the network, to be minimised; None in a study of quality alone.
        settings: Values of the varied keys, such as `search.space.channels`.
        genotype: Content of the trial's genotype.yaml.

    Example:
        >>> Point(3, 0.61, 2500, {"search.space.channels": 8}, genotype="cells: []").lines("parameters")
        ['trial 3', 'quality 0.6100', '2500 parameters', 'channels 8']
    """

    number: int
    quality: float
    cost: float | None
    settings: dict[str, Any]
    genotype: str

    def lines(self, unit: str | None) -> list[str]:
        """Write number, objectives, settings and the operators of each cell, one on each line.

        Args:
            unit: Unit of the cost, such as "milliseconds".
        """
        names = short_names(self.settings)
        cost = [] if self.cost is None else [f"{self.cost:.4g} {unit}"]
        cells = parse_yaml(self.genotype, "genotype")["cells"]
        return [
            f"trial {self.number}",
            f"quality {self.quality:.4f}",
            *cost,
            *(f"{names[key]} {written(value)}" for key, value in self.settings.items()),
            *(f"cell {index + 1}: {', '.join(cell['operators'])}" for index, cell in enumerate(cells)),
        ]


@dataclass(frozen=True)
class Front:
    """The complete trials of a study, and the best of them.

    Attributes:
        cost: Name of the cost, such as "milliseconds"; None in a study of quality alone.
        metrics: Metrics whose geometric mean is the quality.
        points: All complete trials, in their order.
        best: Trials that no other beats, the cheapest first; in a study of quality alone all, the best first.
        files: Files that `show` has written.
        note: Message about a file that could not be made, or "".

    Example:
        >>> point = Point(3, 0.61, 2500, {"search.space.channels": 8}, genotype="cells: []")
        >>> Front("tune", "parameters", ("VIF", "Qabf"), (point,), (point,)).quality
        'quality: geometric mean of VIF, Qabf'
    """

    study: str
    cost: str | None
    metrics: tuple[str, ...]
    points: tuple[Point, ...]
    best: tuple[Point, ...]
    files: tuple[Path, ...] = ()
    note: str = ""

    @property
    def chosen(self) -> tuple[Point, ...]:
        """The front, or in a study of quality alone the best trial."""
        return self.best[:1] if self.cost is None else self.best

    @property
    def quality(self) -> str:
        """The quality in words."""
        return f"quality: geometric mean of {', '.join(self.metrics)}" if len(self.metrics) > 1 else self.metrics[0]


def short_names(keys: Collection[str]) -> dict[str, str]:
    """Shorten dotted keys to their last parts, as far as they stay different.

    Example:
        >>> list(short_names(["search.space.channels", "search.search.outer_loss.edges", "train.loss.edges"]).values())
        ['channels', 'outer_loss.edges', 'loss.edges']
    """
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        alone = (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1)
        names[key] = next(alone, key)
    return names


def written(value: Any) -> str:
    """Write a value of a setting, with numbers of at most four digits."""
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
