"""The points of a study: what its trials came to, and how that is written."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.yaml_text import parse_yaml


@dataclass(frozen=True)
class Point:
    """A trial that came to its end.

    Attributes:
        number: Of the trial.
        quality: To grow.
        cost: To shrink; None in a study of quality alone.
        settings: What it tried, by the keys of `vary`.
        genotype: The text of its genotype.
    """

    number: int
    quality: float
    cost: float | None
    settings: dict[str, Any]
    genotype: str

    def lines(self, unit: str | None) -> list[str]:
        """Say what it is, a fact on each line.

        Args:
            unit: what its cost is.

        Returns:
            Number, objectives, settings, and the operators of each cell.
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
    """What a study has found.

    Attributes:
        study: Its name.
        cost: What shrinks, or None.
        metrics: Those whose geometric mean is the quality.
        points: All trials that came to their end, in their order.
        best: Those that no other beats, the cheapest first; of a study of quality alone all, the best first.
        files: What was written.
        note: What is missing, or "".
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
        """The points that the study is for: its front, or the best trial."""
        return self.best[:1] if self.cost is None else self.best

    @property
    def quality(self) -> str:
        """What the quality is, in words."""
        return f"quality: geometric mean of {', '.join(self.metrics)}" if len(self.metrics) > 1 else self.metrics[0]


def short_names(keys: Collection[str]) -> dict[str, str]:
    """Shorten dotted keys to their last parts, as far as they stay different.

    Args:
        keys: such as `search.space.channels`.

    Returns:
        The short name of each.

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
    """Write a setting as short as it stays clear."""
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
