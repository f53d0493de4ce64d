"""The trainings of candidates in rounds that halve, each in a run folder of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..genotypes import Genotype, in_words, load_genotype, save_genotype
from ..objectives.trivial_fusion import TRIVIAL
from ..runtime.config import load_config
from ..runtime.distribution import Ranks
from ..runtime.errors import DivergedError, UserError
from ..runtime.files import remove_leftovers
from ..runtime.run_files import CONFIG_FILE, FIRST_STAGE_FOLDER, GENOTYPE_FILE, VERIFICATION_FOLDER
from ..training import TrainConfig, train
from .candidates import described
from .search_config import SearchConfig


@dataclass
class Candidate:
    """A network that is trained in a verification.

    Attributes:
        name: Its origin and number, such as "proposed-0", which is the network that the search chose.
        origin: Where it comes from, "proposed", "plain" or "random".
        gflops: Its operations on images of the size of the config, in billions.
        milliseconds: Its predicted time for such images; None where the search has no budget of time.
        losses: Its mean loss over the validation pairs after each round in which it was trained.
    """

    name: str
    origin: str
    genotype: Genotype
    gflops: float
    milliseconds: float | None
    losses: list[float]

    @property
    def operators(self) -> str:
        """Its operators, cell by cell, in a pyramid network after its widths."""
        return in_words(self.genotype)


def train_in_rounds(config: SearchConfig, candidates: Sequence[Candidate], ranks: Ranks, *, overwrite: bool) -> None:
    """Train candidates and add their losses; after each round the better half of each origin goes on.

    Each round trains the networks that are left from fresh weights, for twice as many steps as the round before.

    Args:
        overwrite: Whether trainings that are in the folder are repeated.

    Raises:
        UserError: If a training fails.

    Example:
        >>> train_in_rounds(config, candidates, ALONE, overwrite=False)  # doctest: +SKIP
    """
    left, counts = list(candidates), ranks.from_leader(lambda: _validation_pairs(config))
    for round_ in range(config.verify.rounds):
        remove_leftovers(training_folder(config, left[0], round_).parent)
        for candidate in left:
            candidate.losses.append(_trained(config, candidate, round_, counts, ranks, overwrite))
        origins = dict.fromkeys(candidate.origin for candidate in left)
        left = [
            candidate
            for origin in origins
            for candidate in _better_half([each for each in left if each.origin == origin])
        ]


def _better_half(candidates: Sequence[Candidate]) -> list[Candidate]:
    ordered = sorted(candidates, key=lambda candidate: candidate.losses[-1])
    return ordered[: math.ceil(len(ordered) / 2)]


def _validation_pairs(config: SearchConfig) -> dict[str, int]:
    """Count the validation pairs of each data set that trainings are scored on."""
    seed, count = config.data.seed_of(config.seed), config.verify.validation_pairs
    pairs = config.data.open_pairs(config.task, config.sources, seed, validation_pairs=count)
    return {each.name: len(each.split.validation) for each in pairs.sets}


def training_folder(config: SearchConfig, candidate: Candidate, round_: int) -> Path:
    """Return the run folder of a candidate's training in a round, which counts from 0."""
    return config.run / VERIFICATION_FOLDER / f"round-{round_ + 1}" / candidate.name


def _has_ended(run: Path) -> bool:
    """Return whether a training has come to its end, where it scores the fusion without a network, too."""
    if not (run / GENOTYPE_FILE).is_file():
        return False
    metrics: Any = load_genotype(run).provenance.get("metrics", {})
    return all(name in metrics for name in TRIVIAL)


def _trained(
    config: SearchConfig, candidate: Candidate, round_: int, counts: Mapping[str, int], ranks: Ranks, overwrite: bool
) -> float:
    """Train a candidate in a round, unless it has been, and return its mean loss over the validation pairs.

    The loss of a network whose training diverges is infinite.

    Args:
        counts: The number of validation pairs of each data set. All pairs weigh the same here, unlike in trainings:
            the two pairs of a small folder would be a third of the mean of three folders, and most of its noise.
    """
    run, data, steps = training_folder(config, candidate, round_), config.data, config.verify.steps * 2**round_
    defaults = TrainConfig().train
    genotype = run.with_name(f"{candidate.name}.yaml")
    # Another search in this folder may have proposed another network by this name, or trained it for another while.
    same = genotype.is_file() and described(load_genotype(genotype)) == described(candidate.genotype)
    if same and (run / CONFIG_FILE).is_file():
        same = load_config(TrainConfig, run / CONFIG_FILE).train.steps == steps
    same = bool(ranks.agree(same)) and not overwrite
    if not same or not ranks.agree(_has_ended(run)):
        if ranks.leads:
            save_genotype(candidate.genotype, genotype)
        shared = ("root", "stretch", "synthetic_pairs", "validation", "shares", "workers", "cache_megabytes", "crop")
        sections: dict[str, Any] = {
            "data": {
                **{key: getattr(data, key) for key in (*shared, "batch_size")},
                "validation_pairs": config.verify.validation_pairs,
            },
            "train": {
                "steps": steps,
                "warmup": steps * defaults.warmup // defaults.steps,
                "validate_every": steps,
                "images": 0,
            },
        }
        training = TrainConfig(
            run=run,
            seed=data.seed_of(config.seed),  # which divides the pairs as in the search
            device=config.device,
            task=config.task,
            sources=config.sources,
            colour=config.colour,
            genotype=str(genotype),
            first_stage=None if config.first_stage is None else config.run / FIRST_STAGE_FOLDER,
            loss=config.search.outer_loss,
            **sections,
        )
        started = bool(ranks.agree((run / CONFIG_FILE).is_file()))
        try:
            train(training, resume=same and started, overwrite=not same and started)
        except DivergedError:
            return math.inf
    provenance: Any = load_genotype(run).provenance
    try:
        scores = provenance["metrics"]["best"]
        if len(counts) == 1:
            return float(scores["mean"]["loss"])
        return sum(count * float(scores[name]["loss"]) for name, count in counts.items()) / sum(counts.values())
    except (LookupError, TypeError, ValueError):
        raise UserError(f"{run / GENOTYPE_FILE} has no validation loss; delete {run} and resume the search") from None
