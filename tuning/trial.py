"""One trial: a search with some settings, a training of the network that it finds, and the objectives."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..genotypes import Genotype, load_genotype
from ..runtime.errors import UserError
from ..runtime.loop import Scores
from ..runtime.run_files import CONFIG_FILE, GENOTYPE_FILE
from ..search import search
from ..training import train
from .tune_config import TuneConfig

OnValidation = Callable[[int, Scores], None]


class Outcome(NamedTuple):
    """The result of a trial.

    Attributes:
        genotype: The trained network; its provenance begins with the trial.
    """

    genotype: Genotype
    quality: float
    cost: float | None

    @property
    def values(self) -> tuple[float, ...]:
        """Values of the study's objectives."""
        return (self.quality,) if self.cost is None else (self.quality, self.cost)


def run_trial(
    config: TuneConfig,
    settings: Mapping[str, Any],
    folder: Path,
    number: int,
    on_validation: OnValidation | None = None,
) -> Outcome:
    """Run a trial, or the rest of a trial that was stopped.

    Args:
        folder: Folder of the trial, which gets the run folders `search` and `train`.

    Raises:
        UserError: If a stage fails, or an objective is not finite.
    """
    search_config, train_config = config.stages(settings, folder)
    ended = (search_config.run / GENOTYPE_FILE).is_file()  # a search writes it last, but for a verification
    found = load_genotype(search_config.run) if ended else None
    if found is None or (search_config.candidates and "verification" not in found.provenance):
        started = (search_config.run / CONFIG_FILE).is_file()
        found = search(search_config, resume=started, on_validation=on_validation).genotype
    training = train(train_config, resume=(train_config.run / CONFIG_FILE).is_file())
    quality = geometric_mean([training.scores["best"]["mean"][name] for name in config.quality])
    cost = None if config.cost is None else cost_of(found, config.cost)
    for name, value in (("quality", quality), (config.cost, cost)):
        if value is not None and not math.isfinite(value):
            raise UserError(f"the {name} is not a number: {value}")
    tuning = {
        "study": config.study,
        "trial": number,
        "settings": dict(settings),
        "quality": {"value": quality, "metrics": list(config.quality)},
        **({} if config.cost is None else {"cost": {config.cost: cost}}),
    }
    genotype = replace(
        training.genotype,
        name=f"{config.study}-{number}",
        provenance={"tuning": tuning, **training.genotype.provenance},
    )
    return Outcome(genotype, quality, cost)


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of at least one value: 0 if a value is negative, NaN if a value is NaN.

    Example:
        >>> geometric_mean([2.0, 8.0]), geometric_mean([2.0, -1.0])
        (4.0, 0.0)
    """
    return math.prod(max(value, 0.0) if value == value else value for value in values) ** (1 / len(values))


def cost_of(genotype: Genotype, name: str) -> float:
    """Read a cost of a network, "milliseconds", "GFLOPs" or "parameters", from the provenance of its search."""
    provenance: Any = genotype.provenance
    if name == "milliseconds":
        return float(provenance["latency"]["milliseconds"])
    return float(provenance["flops_640x480"] / 1e9 if name == "GFLOPs" else provenance["parameters"])
