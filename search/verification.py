"""Search proposes, training disposes: proposed networks are trained beside others, in rounds that halve."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

from ..cost import BudgetReport, DeploymentTarget
from ..drawing import draw
from ..genotypes import Provenance, load_genotype
from ..operators import (
    build_network,
    count_flops,
    count_parameters,
    load_network_folder,
    parameter_sizes,
    save_network_folder,
)
from ..runtime.config import config_to_yaml
from ..runtime.csv_text import csv_text
from ..runtime.device import select_device
from ..runtime.distribution import open_ranks
from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.run_files import (
    GENOTYPE_FILE,
    PICTURES_FOLDER,
    VERIFICATION_FILE,
)
from ..runtime.run_folder import open_run
from ..runtime.terminal import print_table
from .candidate_training import Candidate, train_in_rounds, training_folder
from .candidates import described
from .equal_quality import fastest_of_the_best
from .proposals import propose, report_of_search
from .search_config import HARMLESS_OF_SEEDS, VERIFY_KEYS, SearchConfig

RULE = "the fastest whose loss is within one standard error of the best"


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        candidates: All candidates, the best first: those that were trained longest, by their last loss.
        best: The candidate that is kept, within the budget if there is one: the fastest of those that are as good as
            the first.
        best_proposed: The best proposed candidate.
        best_random: The best random candidate, of as many; None where the space has none of this cost.
        equal: Milliseconds of the candidates that are as good as the first, by name (`as_good_as_the_best`).
    """

    candidates: list[Candidate]
    best: Candidate
    best_proposed: Candidate
    best_random: Candidate | None
    equal: Mapping[str, float]

    @property
    def rank(self) -> int:
        """The rank of the best proposed candidate among the random ones, each compared after its last round."""
        randoms = [candidate.losses for candidate in self.candidates if candidate.origin == "random"]
        return 1 + sum(losses[-1] < self.best_proposed.losses[len(losses) - 1] for losses in randoms)


def verify(config: SearchConfig, *, overwrite: bool = False) -> Verification:
    """Train networks that a finished search proposes, beside others that cost the same, and keep the best.

    The others are as many random networks and a plain one, which has one operator everywhere, so that chance and
    shrinking are in the choice. Of those that are as good as the best one (`as_good_as_the_best`) the fastest is kept.
    Times are measured, so that a repeated verification may keep another one of these.

    The networks that the search chose are among the proposed ones, one for each seed. Random ones are fewer where the
    space has no more of their cost.

    Each round trains the networks that are left from fresh weights, by the training stage with its defaults and
    `search.outer_loss`, or where that is null the task's loss for training, for twice as many steps as the round
    before; then the better half of each kind goes on. Refine networks are trained behind the first stage of the search.
    So the search is judged at equal cost by what matters, the trained network. Genotype and weights of the run folder
    become those of the network that is kept. Trainings that have ended are not repeated.

    Args:
        config: The config of the search, whose run folder is complete.
        overwrite: Whether trainings that are in the folder are replaced.

    Raises:
        UserError: If the run cannot be read, or a training fails.

    Example:
        >>> from timfuse.search import SearchConfig, search, verify
        >>> config = SearchConfig(verify={"candidates": 4})
        >>> _ = search(config)  # doctest: +SKIP
        >>> verify(config).best.name  # doctest: +SKIP
        'proposed-2'
    """
    if not (config.run / GENOTYPE_FILE).is_file():
        raise UserError(f"{config.run} holds no search that has ended; search first, or go on with --resume")
    with open_ranks() as ranks, ExitStack() as stack:
        if ranks.leads:
            yaml, harmless = config_to_yaml(config), (*HARMLESS_OF_SEEDS, *VERIFY_KEYS)
            stack.enter_context(open_run(config.run, config_yaml=yaml, resume=True, overwrite=False, harmless=harmless))
        candidates = ranks.from_leader(lambda: propose(config))
        train_in_rounds(config, candidates, ranks, overwrite=overwrite)
        return ranks.from_leader(lambda: _conclude(config, candidates))


def print_verification(verification: Verification) -> None:
    """Print a table with a row for each candidate, and compare the best proposed one with the best random one.

    Example:
        >>> from timfuse.search import SearchConfig, print_verification, verify
        >>> print_verification(verify(SearchConfig(verify={"candidates": 4})))  # doctest: +SKIP
    """
    rounds = max(len(candidate.losses) for candidate in verification.candidates)
    rows = [
        [candidate.name, candidate.operators, *_costs(candidate, 2), *_cells(candidate.losses, rounds)]
        for candidate in verification.candidates
    ]
    heading = [*_kinds_of_cost(verification.best), *(f"round {index + 1}" for index in range(rounds))]
    print_table(["network", "operators"], heading, rows)
    best, ours, other = verification.best, verification.best_proposed, verification.best_random
    count = sum(candidate.origin == "random" for candidate in verification.candidates)
    beside = (
        "no random network costs the same"
        if other is None
        else f"the best proposed network has {ours.losses[-1]:.4f} and rank {verification.rank} beside {count} random"
        f" ones of its cost, whose best has {other.losses[-1]:.4f}"
    )
    plain = "".join(
        f"; the plain one has {candidate.losses[-1]:.4f}"
        for candidate in verification.candidates
        if candidate.origin == "plain"
    )
    times = ", ".join(f"{name} {time:.1f} ms" for name, time in verification.equal.items())
    equal = (
        f"; the fastest of those within one standard error of the best: {times}" if len(verification.equal) > 1 else ""
    )
    print(f"verified  {best.name}: loss {best.losses[-1]:.4f}; {beside}{plain}{equal}")


def _cells(losses: Sequence[float], rounds: int) -> list[str]:
    return [f"{losses[index]:.4f}" if index < len(losses) else "" for index in range(rounds)]


def _kinds_of_cost(candidate: Candidate) -> list[str]:
    return ["GFLOPs"] if candidate.milliseconds is None else ["GFLOPs", "predicted ms"]


def _costs(candidate: Candidate, digits: int) -> list[str]:
    return [f"{cost:.{digits}f}" for cost in (candidate.gflops, candidate.milliseconds) if cost is not None]


def _conclude(config: SearchConfig, candidates: list[Candidate]) -> Verification:
    """Rank the candidates, and put genotype and weights of the best one into the run folder."""
    ranked = sorted(candidates, key=lambda candidate: (-len(candidate.losses), candidate.losses[-1]))
    ours, others = ([each for each in ranked if each.origin == origin] for origin in ("proposed", "random"))
    target = DeploymentTarget(config.cost.height, config.cost.width, select_device(config.device))
    found = load_genotype(config.run)
    equal = {} if math.isinf(ranked[0].losses[-1]) else fastest_of_the_best(config, ranked)
    ordered = sorted(ranked, key=lambda candidate: candidate.name != next(iter(equal), ranked[0].name))
    searched_budget, budget, best = report_of_search(found), config.cost.parsed_budget, ordered[0]
    report = searched_budget
    if budget is not None:
        for best in ordered:
            cost = target.cost(budget.kind, build_network(best.genotype))
            if cost <= budget.amount:
                predicted = cost if best.milliseconds is None else best.milliseconds  # counts are exact
                report = BudgetReport(budget.text, budget.kind, round(predicted, 4), cost, met=True)
                break
        else:  # as the search has reported already
            best = candidates[0]
    if math.isinf(best.losses[-1]):
        raise UserError(
            "no network could be trained; lower the learning rate of the search, or set verify.candidates=0"
        )
    verification = Verification(ranked, best, ours[0], others[0] if others else None, equal)
    rounds = config.verify.rounds
    losses = [f"loss after round {index + 1}" for index in range(rounds)]
    heading = ["network", "operators", *_kinds_of_cost(best), *losses]
    rows = [[each.name, each.operators, *_costs(each, 4), *_cells(each.losses, rounds)] for each in ranked]
    write_atomically(config.run / VERIFICATION_FILE, csv_text(heading, rows))
    searched: Any = found.provenance
    trained, network = load_network_folder(training_folder(config, best, len(best.losses) - 1))
    metrics: Any = trained.provenance["metrics"]
    changed: dict[str, Any] = {
        "parameters": count_parameters(network),
        "flops_640x480": count_flops(network, 480, 640, trained.inputs),
        "latency": {**searched["latency"], "milliseconds": round(target.cost("ms", network), 2)},
        "metrics": {"supernet": searched["metrics"]["supernet"], **metrics},  # "derived" is of inherited weights
        **({} if report is None else {"budget": report.provenance}),
        "reason": searched["reason"]
        if len(ranked) == 1
        else {"rule": f"{RULE} of {len(ours)} proposed and {len(ranked) - len(ours)} other networks after training"},
        "verification": {
            "searched": described(candidates[0].genotype),
            **({} if searched_budget is None else {"searched_budget": searched_budget.provenance}),
            "network": best.name,
            "as_good_as_the_best": [each.name for each in ranked if each.name in equal],
            "rank_among_random": verification.rank,
            "training_steps": sum(
                config.verify.steps * 2**index for each in ranked for index in range(len(each.losses))
            ),
            "steps": [config.verify.steps * 2**index for index in range(rounds)],
            "losses": {each.name: [round(loss, 6) for loss in each.losses] for each in ranked},
        },
    }
    provenance = cast(Provenance, {**searched, **changed})
    genotype = replace(trained, name=config.run.resolve().name, provenance=provenance)
    draw(genotype, config.run / PICTURES_FOLDER, parameter_sizes(network))
    save_network_folder(config.run, genotype, network)
    return verification
