"""Tables of a downstream task: the scores of each method, and the differences between two with their intervals."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..downstream.bootstrap import difference_interval, resampled_scores
from ..downstream.scoring import DetectionMatches, MaskConfusions
from ..runtime.csv_text import csv_text

OWN = "own"
"""Marks the scores of a run's own task network, beside those of one that was trained on its images afterwards."""
_SEED = re.compile("[-_]?(seed)?[-_]?[0-9]+")

Record = DetectionMatches | MaskConfusions


@dataclass(frozen=True)
class MethodScores:
    """The scores of one method.

    Attributes:
        scores: For each run, the mean scores and those of each class, such as "AP50" and "AP50 person".
        records: For each run, what it made of each image, for the intervals; empty without them.

    Example:
        >>> MethodScores("joint", (0, 1), ({"AP50": 0.5}, {"AP50": 0.7})).mean("AP50")
        0.6
    """

    name: str
    seeds: tuple[int, ...]
    scores: tuple[Mapping[str, float], ...]
    records: tuple[Record, ...] = field(default=(), repr=False)

    def mean(self, score: str) -> float:
        """Return the mean over the runs; nan for a score that they do not have."""
        return math.fsum(row.get(score, math.nan) for row in self.scores) / len(self.scores)

    def deviation(self, score: str) -> float | None:
        """Return the standard deviation over the runs, of a sample; None for a single run."""
        values = [row.get(score, math.nan) for row in self.scores]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


class Difference(NamedTuple):
    """How much better one method is than another, by the score of the task and of all images or a part of them.

    Attributes:
        part: Name of the part of the images; "" for all.
        mean: Difference between the means over the runs.
        low: Lower end of the 95 % interval over images.
        high: Upper end of the 95 % interval over images.
    """

    method: str
    other: str
    part: str
    mean: float
    low: float
    high: float

    @property
    def shown(self) -> tuple[str, str]:
        """The difference and its interval as text."""
        return f"{self.mean:+.3f}", f"{self.low:+.3f} to {self.high:+.3f}"


def find_differences(
    methods: Sequence[MethodScores], score: str, parts: Mapping[str, Sequence[int]], resamples: int = 2000
) -> list[Difference]:
    """Compare every method with each one above it by a paired bootstrap over the images.

    Args:
        methods: The methods, all with records of the same images.
        score: Name of the score, "AP50" or "mIoU".
        parts: Positions of the images of each part, by its name; all images are compared, too.

    Returns:
        For each pair, that of all images and of each part.
    """
    found = []
    for part, places in {"": None, **parts}.items():
        drawn = {
            method.name: resampled_scores([_part(record, places) for record in method.records], resamples)
            for method in methods
        }
        for other, method in combinations(methods, 2):
            name = f"{score} {part}".strip()
            mean = method.mean(name) - other.mean(name)
            low, high = difference_interval(drawn[method.name], drawn[other.name])
            found.append(Difference(method.name, other.name, part, mean, low, high))
    return found


def part_scores(record: Record, score: str, parts: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Compute the score of each part of the images, under the names of score and part."""
    scores = {}
    for part, places in parts.items():
        by_class = _part(record, places).class_scores(np.ones((1, len(places)), np.int64))[0]
        known = by_class[~np.isnan(by_class)]
        scores[f"{score} {part}"] = float(known.mean()) if len(known) else math.nan
    return scores


def markdown(methods: Sequence[MethodScores]) -> str:
    """Write a table in Markdown of the scores of at least one method: mean ± standard deviation over the seeds."""
    columns = columns_of(methods)
    lines = [["method", "seeds", *columns], [":--", *["--:"] * (len(columns) + 1)]]
    lines += [[method.name, str(len(method.seeds)), *(shown(method, name) for name in columns)] for method in methods]
    return _lines(lines)


def differences_markdown(differences: Sequence[Difference], score: str) -> str:
    """Write a table in Markdown of differences, with the intervals."""
    lines = [["method", "against", "images", score, "95 % interval"], [":--", ":--", ":--", "--:", "--:"]]
    lines += [[each.method, each.other, each.part or "all", *each.shown] for each in differences]
    return _lines(lines)


def columns_of(methods: Sequence[MethodScores]) -> list[str]:
    """List the scores of a table, the fusion loss last."""
    names = dict.fromkeys(name for method in methods for row in method.scores for name in row)
    return sorted(names, key=lambda name: name == "loss")


def shown(method: MethodScores, score: str) -> str:
    """Write the mean of a score with its standard deviation, if there is one; a dash without the score."""
    if not any(score in row for row in method.scores):
        return "–"  # noqa: RUF001
    mean, deviation = method.mean(score), method.deviation(score)
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def scores_csv(methods: Sequence[MethodScores]) -> str:
    """Write the scores of every run as CSV."""
    columns = columns_of(methods)
    return csv_text(
        ["method", "seed", *columns],
        (
            [method.name, seed, *(f"{row[name]:.6g}" if name in row else "" for name in columns)]
            for method in methods
            for seed, row in zip(method.seeds, method.scores, strict=True)
        ),
    )


def differences_csv(differences: Sequence[Difference]) -> str:
    """Write differences as CSV."""
    rows = ([*each[:3], *(f"{value:.6g}" for value in each[3:])] for each in differences)
    return csv_text(["method", "other", "part", "difference", "low", "high"], rows)


def method_name(runs: Sequence[Path]) -> str:
    """Name a method by its run folder, without the seed where there are several."""
    name = runs[0].resolve().name
    return name if len(runs) == 1 else re.sub(f"{_SEED.pattern}$", "", name) or name


def _part(record: Record, places: Sequence[int] | None) -> Record:
    """Keep some images of a record; all for None."""
    if places is None:
        return record
    if isinstance(record, MaskConfusions):
        return MaskConfusions(record.pixels[list(places)])
    position = np.full(record.images, -1)
    position[list(places)] = np.arange(len(places))
    kept = position[record.places] >= 0
    return DetectionMatches(
        position[record.places[kept]], record.kinds[kept], record.hits[kept], record.objects[list(places)]
    )


def _lines(cells: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"
