"""Searches that differ in their seed alone: how far they agree, and which one is best on the validation pairs."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..cost import BudgetReport
from ..downstream import keep_task_network, load_task_network
from ..drawing import draw
from ..genotypes import Genotype, in_words, load_genotype
from ..operators import load_network_folder, parameter_sizes, save_network_folder
from ..runtime.config import config_to_yaml
from ..runtime.distribution import open_ranks
from ..runtime.errors import UserError
from ..runtime.history import drawn_history
from ..runtime.run_files import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    GENOTYPE_FILE,
    PICTURES_FOLDER,
    SEED_FOLDERS,
    TASK_FOLDER,
)
from ..runtime.run_folder import open_run
from ..runtime.terminal import print_table
from .probability_curves import draw_probabilities
from .search_config import HARMLESS_OF_SEEDS, VERIFY_KEYS, SearchConfig
from .search_setup import first_stage_of
from .verification import Verification

_FORMATS = {"outer loss": ".4f", "inner loss": ".4f", "ms": ",.2f", "parameters": ",.0f"}


@dataclass(frozen=True)
class SearchResult:
    """The result of a search, with one seed or several.

    Attributes:
        genotype: The network with its provenance, as in `genotype.yaml` of the run folder.
        genotypes: The genotype of each seed, at least one.
        best_seed: The seed with the least outer loss on the validation pairs, among the seeds whose network meets the
            budget if there are any.
        verification: The trainings at the end, where the config asks for them.
        front: The network for each budget of `cost.front`, by the text of the budget.
    """

    genotype: Genotype
    genotypes: dict[int, Genotype]
    best_seed: int
    verification: Verification | None = None
    front: dict[str, Genotype] = field(default_factory=dict)

    @property
    def budget(self) -> BudgetReport | None:
        """The cost of the network compared with the budget; None without a budget."""
        return BudgetReport.of(self.genotype)

    @property
    def agreement(self) -> dict[str, tuple[str, int]]:
        """What most seeds chose for each decision, such as "cell 1 step 2" or "level 0 width", and their number."""
        chosen: dict[str, Counter[str]] = {}
        for genotype in self.genotypes.values():
            if isinstance(genotype.channels, tuple):
                for level, width in enumerate(genotype.channels):
                    chosen.setdefault(f"level {level} width", Counter())[str(width)] += 1
            for index, cell in enumerate(genotype.cells, start=1):
                # Networks may lack the cells of the finest level, and with them the numbers shift.
                place = f"cell {index}" if cell.level is None else f"level {cell.level}"
                for step, operator in enumerate(cell.operators, start=1):
                    chosen.setdefault(f"{place} step {step}", Counter())[operator] += 1
        return {decision: candidates.most_common(1)[0] for decision, candidates in chosen.items()}


def search_seeds(
    config: SearchConfig, search_once: Callable[..., Genotype], *, resume: bool, overwrite: bool
) -> SearchResult:
    """Search `config.seeds` times, with the seeds from `config.seed` on, and keep the best.

    Each search has its own folder, `seed-0` and so on, below the run folder, which gets genotype, weights and pictures
    of the best one at the end. All searches share the synthetic pairs, the split and the validation crops of the first
    seed, so that their validation losses can be compared. Order and crops of the training pairs and initial weights
    differ. With a downstream task, the outer loss of each search is the loss of its own task network.

    Args:
        search_once: Function that searches with one config; it takes `resume`, and for refine networks `first_stage`.
        resume: Whether to go on with stopped searches. Finished ones are kept, and `config.seeds` may have changed.

    Raises:
        UserError: As for `search`, or if the folder holds a single search.
    """
    seeds = range(config.seed, config.seed + config.seeds)
    runs = {seed: config.run / SEED_FOLDERS.replace("*", str(seed)) for seed in seeds}
    data = config.data.model_copy(update={"seed": config.data.seed_of(config.seed)})
    with open_ranks() as ranks, ExitStack() as stack:
        first_stage = first_stage_of(config, ranks, resume)
        if ranks.leads:
            if resume and (config.run / CHECKPOINT_FILE).is_file():
                raise UserError(
                    f"{config.run} holds a single search; go on with it without --seeds, or name another folder"
                )
            stack.enter_context(
                open_run(
                    config.run,
                    config_yaml=config_to_yaml(config),
                    resume=resume,
                    overwrite=overwrite,
                    harmless=(*HARMLESS_OF_SEEDS, *VERIFY_KEYS),
                )
            )
            if first_stage is not None:
                first_stage.keep(config.run)
        for seed, run in runs.items():
            if not ranks.agree((run / GENOTYPE_FILE).is_file()):
                started = bool(ranks.agree((run / CONFIG_FILE).is_file()))
                changes = {"run": run, "seed": seed, "seeds": 1, "data": data}
                # The same first stage in all, whatever becomes of the folder that it is from.
                shared = {} if first_stage is None else {"first_stage": first_stage}
                search_once(config.model_copy(update=changes), resume=started, **shared)
        return ranks.from_leader(lambda: _conclude(config.run, runs))


def _conclude(folder: Path, runs: Mapping[int, Path]) -> SearchResult:
    """Copy the results of the best search into the folder of all; the genotype comes last."""
    genotypes = {seed: load_genotype(run) for seed, run in runs.items()}
    losses = {seed: _figures(genotype)["outer loss"] for seed, genotype in genotypes.items()}
    within = [seed for seed, genotype in genotypes.items() if _meets_budget(genotype)]
    picked = min(within or genotypes, key=losses.__getitem__)
    average, deviation = _spread(losses.values())
    seeds = {
        "count": len(runs),
        "picked": picked,
        "outer_loss": {"mean": average, "std": deviation, "each": list(losses.values())},
    }
    name, found = folder.resolve().name, genotypes[picked]
    genotype = replace(found, name=name, provenance={**found.provenance, "seeds": seeds})
    _, network = load_network_folder(runs[picked])
    draw(genotype, folder / PICTURES_FOLDER, parameter_sizes(network))
    with drawn_history(runs[picked]) as history:
        draw_probabilities(history, folder / PICTURES_FOLDER)
    if (runs[picked] / TASK_FOLDER).is_dir():
        keep_task_network(load_task_network(runs[picked]), folder)
    save_network_folder(folder, genotype, network)
    return SearchResult(genotype, genotypes, picked)


def _meets_budget(genotype: Genotype) -> bool:
    report = BudgetReport.of(genotype)
    return report is None or report.met


def _figures(genotype: Genotype) -> dict[str, float]:
    provenance: Any = genotype.provenance
    return {
        "outer loss": provenance["metrics"]["derived"]["mean"]["outer_loss"],
        "inner loss": provenance["metrics"]["derived"]["mean"]["inner_loss"],
        "ms": provenance["latency"]["milliseconds"],
        "parameters": provenance["parameters"],
    }


def print_front(result: SearchResult) -> None:
    """Print a table with a row for each budget of the front.

    Example:
        >>> from timfuse.search import SearchConfig, print_front, search
        >>> print_front(search(SearchConfig(cost={"front": "5ms,10ms"})))  # doctest: +SKIP
    """
    rows = []
    for text, genotype in result.front.items():
        figures = _figures(genotype)
        operators = in_words(genotype)
        within = "yes" if _meets_budget(genotype) else "no"
        rows.append([text, within, operators, *(f"{figures[heading]:{form}}" for heading, form in _FORMATS.items())])
    print_table(["budget", "met", "operators"], list(_FORMATS), rows)


def _spread(values: Collection[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation, which is 0 for a single value."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def print_seeds(result: SearchResult) -> None:
    """Print a table with a row for each seed, the agreement of the seeds, and the best one.

    Example:
        >>> from timfuse.search import SearchConfig, print_seeds, search
        >>> print_seeds(search(SearchConfig(seeds=3)))  # doctest: +SKIP
    """
    figures = {seed: _figures(genotype) for seed, genotype in result.genotypes.items()}
    rows = []
    for seed, genotype in result.genotypes.items():
        numbers = (f"{figures[seed][heading]:{form}}" for heading, form in _FORMATS.items())
        rows.append([str(seed), in_words(genotype), *numbers])
    spreads = {heading: _spread([row[heading] for row in figures.values()]) for heading in _FORMATS}
    numbers = (f"{spreads[heading][0]:{form}} ± {spreads[heading][1]:{form}}" for heading, form in _FORMATS.items())
    rows.append(["mean ± std", "", *numbers])
    print_table(["seed", "network"], list(_FORMATS), rows)
    for decision, (candidate, count) in result.agreement.items():
        print(f"{decision}: {candidate} in {count} of {len(figures)}")
    within = ", within the budget" if BudgetReport.of(result.genotype) and _meets_budget(result.genotype) else ""
    print(f"picked    seed {result.best_seed}: least outer loss on the validation pairs{within}")
