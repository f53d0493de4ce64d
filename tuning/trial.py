"""One trial: search with some settings, train what is found, and say how good and how costly it is."""

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
    """What a trial ends with.

    Attributes:
        genotype: As trained; its provenance begins with the trial.
        quality: To grow.
        cost: To shrink; None where the study does not ask.
    """

    genotype: Genotype
    quality: float
    cost: float | None

    @property
    def values(self) -> tuple[float, ...]:
        """The objectives of the study."""
        return (self.quality,) if self.cost is None else (self.quality, self.cost)


def run_trial(
    config: TuneConfig,
    settings: Mapping[str, Any],
    folder: Path,
    number: int,
    on_validation: OnValidation | None = None,
) -> Outcome:
    """Run a trial, or what is left of it after it was stopped in whatever way.

    Args:
        config: of the study.
        settings: what this trial tries, by the keys of `vary`.
        folder: of the trial; gets the run folders `search` and `train`.
        number: of the trial.
        on_validation: Receives the step and the losses of each validation of the search.

    Returns:
        The trained genotype and the objectives.

    Raises:
        UserError: a stage failed, or an objective is not a number.
    """
    search_config, train_config = config.stages(settings, folder)
    if (search_config.run / GENOTYPE_FILE).is_file():  # which is what a search writes last
        found = load_genotype(search_config.run)
    else:
        found = search(search_config, resume=_begun(search_config.run), on_validation=on_validation).genotype
    training = train(train_config, resume=_begun(train_config.run))
    quality = geometric_mean([training.scores["best"]["mean"][name] for name in config.quality])
    cost = None if config.cost is None else cost_of(found, config.cost)
    for name, value in (("quality", quality), (config.cost, cost)):
        if value is not None and not math.isfinite(value):
            raise UserError(f"the {name} is not a number: {value}")
    told = {
        "study": config.study,
        "trial": number,
        "settings": dict(settings),
        "quality": {"value": quality, "metrics": list(config.quality)},
        **({} if config.cost is None else {"cost": {config.cost: cost}}),
    }
    genotype = replace(
        training.genotype,
        name=f"{config.study}-{number}",
        provenance={"tuning": told, **training.genotype.provenance},
    )
    return Outcome(genotype, quality, cost)


def geometric_mean(values: Sequence[float]) -> float:
    """Combine metrics of different scales.

    Args:
        values: at least one.

    Returns:
        Their geometric mean; 0 where one is below 0, NaN where one is none.
    """
    return math.prod(max(value, 0.0) if value == value else value for value in values) ** (1 / len(values))


def cost_of(genotype: Genotype, name: str) -> float:
    """Read a cost of a network from what the search said of it.

    Args:
        genotype: of a search.
        name: "milliseconds", "GFLOPs" or "parameters".

    Returns:
        The cost.
    """
    said: Any = genotype.provenance
    return float(
        {
            "milliseconds": lambda: said["latency"]["milliseconds"],
            "GFLOPs": lambda: said["flops_640x480"] / 1e9,
            "parameters": lambda: said["parameters"],
        }[name]()
    )


def _begun(run: Path) -> bool:
    return (run / CONFIG_FILE).is_file()
