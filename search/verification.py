"""Search proposes, training disposes: proposed networks are trained beside random ones, in rounds that halve."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..cost import BudgetReport, DeploymentTarget, parse_budget
from ..cost.cost_model import count_costs
from ..cost.search_space import Choices
from ..drawing import draw
from ..genotypes import Genotype, Provenance, load_genotype, save_genotype
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
from ..runtime.history import drawn_history
from ..runtime.loop import HARMLESS
from ..runtime.run_files import (
    CONFIG_FILE,
    GENOTYPE_FILE,
    PICTURES_FOLDER,
    SEED_FOLDERS,
    VERIFICATION_FILE,
    VERIFICATION_FOLDER,
)
from ..runtime.run_folder import open_run
from ..runtime.seeds import derive_seed
from ..runtime.terminal import print_table
from ..training import TrainConfig, train
from .candidates import proposed, random_networks
from .search_config import SearchConfig


@dataclass
class Candidate:
    """A network that is trained in a verification.

    Attributes:
        name: Its origin and number, such as "proposed-0", which is the network that the search chose.
        origin: "proposed" or "random".
        gflops: Its operations on images of the size of the config, in billions.
        losses: Its loss on the validation pairs after each round in which it was trained.
    """

    name: str
    origin: str
    genotype: Genotype
    gflops: float
    losses: list[float]

    @property
    def operators(self) -> str:
        """Its operators, cell by cell."""
        return " | ".join(", ".join(cell.operators) for cell in self.genotype.cells)


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        candidates: All candidates, the best first: those that were trained longest, by their last loss.
        best: The best proposed candidate.
        rank: Its rank among the random candidates and itself, from 1, in the last round that each of them was in.
    """

    candidates: list[Candidate]
    best: Candidate
    rank: int

    @property
    def others(self) -> int:
        """The number of random candidates."""
        return sum(candidate.origin == "random" for candidate in self.candidates)


def verify(config: SearchConfig, *, overwrite: bool = False) -> Verification:
    """Train networks that a finished search proposes, beside as many random ones that cost the same, and keep the best.

    Random ones are fewer where the space has no more of this cost.

    Each round trains the networks that are left from fresh weights, by the training stage with its defaults and the
    loss of the task, for twice as many steps as the round before; then the better half of each kind goes on. So the
    search is judged at equal cost by what matters, the trained network. Genotype and weights of the run folder become
    those of the best proposed network. Trainings that have ended are not repeated.

    Args:
        config: The config of the search, whose run folder is complete.
        overwrite: Whether trainings that are in the folder are replaced.

    Raises:
        UserError: If the run cannot be read, or a training fails.

    Example:
        >>> from timfuse.search import SearchConfig, search, verify
        >>> config = SearchConfig(verify={"candidates": 4})
        >>> _ = search(config)  # doctest: +SKIP
        >>> verify(config).rank  # doctest: +SKIP
        1
    """
    with open_ranks() as ranks, ExitStack() as stack:
        if ranks.leads:
            yaml, harmless = config_to_yaml(config), (*HARMLESS, "search.checkpoint_every", "seeds")
            stack.enter_context(open_run(config.run, config_yaml=yaml, resume=True, overwrite=False, harmless=harmless))
        candidates = propose(config)
        left = candidates
        for round_ in range(config.verify.rounds):
            for candidate in left:
                candidate.losses.append(_trained(config, candidate, round_, overwrite))
            left = [
                candidate
                for origin in ("proposed", "random")
                for candidate in _better_half([each for each in left if each.origin == origin])
            ]
        return ranks.from_leader(lambda: _conclude(config, candidates))


def propose(config: SearchConfig) -> list[Candidate]:
    """List the candidates of a verification: the networks that a search proposes, and random ones.

    Raises:
        UserError: If the history of the search cannot be read.
    """
    space, count = config.space.search_space, config.verify.candidates
    target = DeploymentTarget(config.cost.height, config.cost.width, torch.device("cpu"))
    model = count_costs("FLOPs", space, target)
    idle = space.operators.index("identity") if "identity" in space.operators else None
    seed = derive_seed(config.seed, "verification", 0)
    found = load_genotype(config.run)
    verified: Any = found.provenance.get("verification", {})
    searched = verified.get("searched", [list(cell.operators) for cell in found.cells])
    probabilities = torch.stack([distribution(run, space.operators) for run in _searches(config.run)]).mean(0)
    chosen: Choices = [[space.operators.index(name) for name in row] for row in searched]
    ours = proposed(probabilities, chosen, model, count, idle, seed)
    if (budget := config.cost.parsed_budget) is not None:  # the first is what the search found, within it if any is
        target = replace(target, device=select_device(config.device))
        costs = [target.cost(budget.kind, build_network(space.genotype(network))) for network in ours[1:]]
        ours[1:] = [network for network, cost in zip(ours[1:], costs, strict=True) if cost <= budget.amount]
    others = random_networks(chosen, model, len(ours), idle, seed, taken=ours)
    return [
        Candidate(
            f"{origin}-{index}",
            origin,
            replace(
                config.for_task(space.genotype(network)), name=f"{origin}-{index}", provenance={"source": f"{origin}"}
            ),
            model.predict(network) / 1e9,
            [],
        )
        for origin, networks in (("proposed", ours), ("random", others))
        for index, network in enumerate(networks)
    ]


def distribution(run: Path, operators: Sequence[str]) -> Tensor:
    """Read the operator probabilities, (cells, steps, candidates), with which a search ended, from its history.

    Raises:
        UserError: If there are none.
    """
    with drawn_history(run) as history:
        last: Mapping[str, Mapping[str, float]] = [row for row in history if "probability" in row][-1]["probability"]
        edges = {tuple(map(int, edge.split()[1::2])): edge for edge in last}  # "cell 1 step 2"
        cells, steps = max(edges)
        rows = [
            [[last[edges[cell, step]][name] for name in operators] for step in range(1, steps + 1)]
            for cell in range(1, cells + 1)
        ]
        return torch.tensor(rows, dtype=torch.float64)


def print_verification(verification: Verification) -> None:
    """Print a table with a row for each candidate, and the rank of the best proposed one.

    Example:
        >>> from timfuse.search import SearchConfig, print_verification, verify
        >>> print_verification(verify(SearchConfig(verify={"candidates": 4})))  # doctest: +SKIP
    """
    rounds = max(len(candidate.losses) for candidate in verification.candidates)
    rows = [
        [candidate.name, candidate.operators, f"{candidate.gflops:.2f}", *_cells(candidate.losses, rounds)]
        for candidate in verification.candidates
    ]
    print_table(["network", "operators"], ["GFLOPs", *(f"round {index + 1}" for index in range(rounds))], rows)
    best = verification.best
    print(f"verified  {best.name}: rank {verification.rank} of {verification.others + 1}, beside random networks")


def _cells(losses: Sequence[float], rounds: int) -> list[str]:
    return [f"{losses[index]:.4f}" if index < len(losses) else "" for index in range(rounds)]


def _searches(run: Path) -> list[Path]:
    """Return the run folders of a search: those of its seeds, or its own."""
    seeds = sorted(path for path in run.glob(SEED_FOLDERS) if (path / GENOTYPE_FILE).is_file())
    return seeds or [run]


def _better_half(candidates: Sequence[Candidate]) -> list[Candidate]:
    ordered = sorted(candidates, key=lambda candidate: candidate.losses[-1])
    return ordered[: math.ceil(len(ordered) / 2)]


def _folder(config: SearchConfig, candidate: Candidate, round_: int) -> Path:
    return config.run / VERIFICATION_FOLDER / f"round-{round_ + 1}" / candidate.name


def _trained(config: SearchConfig, candidate: Candidate, round_: int, overwrite: bool) -> float:
    """Train a candidate in a round, unless it has been, and return its loss on the validation pairs."""
    run, data, steps = _folder(config, candidate, round_), config.data, config.verify.steps * 2**round_
    defaults = TrainConfig()
    if overwrite or not (run / GENOTYPE_FILE).is_file():
        genotype = run.with_name(f"{candidate.name}.yaml")
        save_genotype(candidate.genotype, genotype)
        sections: dict[str, Any] = {
            "data": {
                **{key: getattr(data, key) for key in ("root", "stretch", "synthetic_pairs", "validation", "shares")},
                **{key: getattr(data, key) for key in ("workers", "cache_megabytes", "crop")},
                "validation_pairs": config.verify.validation_pairs,
            },
            "train": {
                "steps": steps,
                "warmup": steps * defaults.train.warmup // defaults.train.steps,
                "validate_every": steps,
                "images": 0,
            },
        }
        train(
            TrainConfig(
                run=run,
                seed=config.seed,
                device=config.device,
                task=config.task,
                sources=config.sources,
                colour=config.colour,
                genotype=str(genotype),
                **sections,
            ),
            resume=not overwrite and (run / CONFIG_FILE).is_file(),
            overwrite=overwrite,
        )
    provenance: Any = load_genotype(run).provenance
    try:
        return float(provenance["metrics"]["best"]["mean"]["loss"])
    except (LookupError, TypeError, ValueError):
        raise UserError(f"{run / GENOTYPE_FILE} has no validation loss; delete {run} and resume the search") from None


def _conclude(config: SearchConfig, candidates: list[Candidate]) -> Verification:
    """Rank the candidates, and put genotype and weights of the best proposed one into the run folder."""
    ranked = sorted(candidates, key=lambda candidate: (-len(candidate.losses), candidate.losses[-1]))
    best = next(candidate for candidate in ranked if candidate.origin == "proposed")
    rank = 1 + sum(
        candidate.losses[-1] < best.losses[len(candidate.losses) - 1]
        for candidate in ranked
        if candidate.origin == "random"
    )
    verification = Verification(ranked, best, rank)
    rounds = config.verify.rounds
    heading = ["network", "operators", "GFLOPs", *(f"loss after round {index + 1}" for index in range(rounds))]
    rows = [[each.name, each.operators, f"{each.gflops:.4f}", *_cells(each.losses, rounds)] for each in ranked]
    write_atomically(config.run / VERIFICATION_FILE, csv_text(heading, rows))
    searched: Any = load_genotype(config.run).provenance
    trained, network = load_network_folder(_folder(config, best, len(best.losses) - 1))
    metrics: Any = trained.provenance["metrics"]
    target = DeploymentTarget(config.cost.height, config.cost.width, select_device(config.device))
    milliseconds = target.cost("ms", network)
    costs = {"ms": milliseconds, "FLOPs": 1e9 * best.gflops, "params": count_parameters(network)}
    changed: dict[str, Any] = {
        "parameters": costs["params"],
        "flops_640x480": count_flops(network, 480, 640),
        "latency": {**searched["latency"], "milliseconds": round(milliseconds, 2)},
        "metrics": {**searched["metrics"], **metrics},
        "verification": {
            "searched": [list(cell.operators) for cell in candidates[0].genotype.cells],
            "network": best.name,
            "rank": rank,
            "among": verification.others + 1,
            "steps": [config.verify.steps * 2**index for index in range(rounds)],
            "losses": {each.name: [round(loss, 6) for loss in each.losses] for each in ranked},
        },
    }
    if best.name != "proposed-0":
        changed["reason"] = {
            "rule": f"the best of {len(ranked) - verification.others} proposed networks after training"
        }
        if (report := BudgetReport.of(load_genotype(config.run))) is not None:
            measured = costs[report.kind]
            met = measured <= parse_budget(report.asked).amount
            changed["budget"] = replace(report, predicted=measured, measured=measured, met=met).provenance
    provenance = {**searched, **changed}
    genotype = replace(trained, name=config.run.resolve().name, provenance=cast(Provenance, provenance))
    draw(genotype, config.run / PICTURES_FOLDER, parameter_sizes(network))
    save_network_folder(config.run, genotype, network)
    return verification
