"""Whether searches find better networks than chance, shrinking or a person, on the ruler of the benchmark's trainings.

    python -m benchmarks.table_searches RUN --data DIR [--data DIR …] [--seeds 0 1 2 3 4] [--part 0/1]

DIR holds infrared-visible pairs with train.txt and val.txt. Each seed searches on the training pairs alone, for 1
GFLOPs, and with its weights keeps a network for 0.5 and for 2 GFLOPs, too (`--front`). The networks of all rows are
trained with three seeds by the recipe of the benchmark (`benchmarks.tabular`: 240 steps), and scored on the validation
pairs, which the search has not seen. There a training takes half a minute, and how far ranks can be trusted is known
(`timfuse search --benchmark`). Rows at 1 GFLOPs:

- found: of four networks that the search proposes, the one that does best in a training with one seed; its loss is that
  with the other seeds, averaged over the seed that chooses;
- of the weights: the proposed network with the least loss with the search's weights;
- most probable: what the search chose, which may be below the budget;
- random search: as `found`, of four networks of the benchmark; and of as many as it trains in the time of a search;
- random: the mean of the benchmark's networks; and of those with the finest level;
- plain, shrunk, hand-made: as in `benchmarks.search_quality`;
- untrained: the plain network with fresh weights; and methods without a network. Their losses are in `loss_240`, too.

At the other costs, the network of the front is `found`: no training chooses it. All networks are within 5 % of the
cost, but for `most probable`. Four networks of the benchmark at each cost are trained again; its losses are shifted by
the mean difference. The trainings are kept in benchmarks/results/table-searches.csv, compared in
table-searches.md, which a call without RUN writes anew. Parts like 0/2 and 1/2 train in two processes. What
searches return after their verification is scored by `benchmarks.verified_searches`.
"""

import argparse
import csv
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_quality import RESULTS, UNTRAINED, hand_made, link_training_pairs, of_cost, of_shape, shrunk
from benchmarks.tabular import CPU, SPACE, STEPS, described, key, read, recipe, train_missing
from timfuse.cost import DeploymentTarget
from timfuse.cost.cost_model import count_costs
from timfuse.genotypes import Genotype, load_genotype, save_genotype
from timfuse.objectives.trivial_fusion import TRIVIAL
from timfuse.operators import build_network
from timfuse.runtime.csv_text import csv_text
from timfuse.runtime.files import write_atomically
from timfuse.runtime.run_files import GENOTYPE_FILE
from timfuse.runtime.seeds import seed_everything
from timfuse.search import SearchConfig, search
from timfuse.search.benchmark import BUDGETS, METRICS, query, trained_networks
from timfuse.search.candidates import BAND, plain_network
from timfuse.search.proposals import propose
from timfuse.training.train_validation import Fuse, validate

TABLE = RESULTS / "table-searches.csv"
SEARCHED = 1.0
FRONT = tuple(budget for budget in BUDGETS if budget != SEARCHED)
TRAININGS = 3  # of each network, with as many seeds
CONTROLS = 4  # for each cost
PROPOSED = 4
EQUAL_TIME = 19  # trainings of half a minute that take about as long as a search and those of its proposals
RESAMPLES = 2000
RULES: dict[str, Callable[[Sequence[int]], Genotype]] = {"shrunk": shrunk, "hand-made": hand_made}
Row = dict[str, str]
Losses = NDArray[np.float64]  # (networks, training seeds)
Values = dict[str, Losses | float]


def networks_of_search(config: SearchConfig) -> list[tuple[float, str, Genotype]]:
    """Search, unless that has been done; return networks with their cost and row."""
    if not (config.run / GENOTYPE_FILE).is_file():
        search(config, resume=config.run.is_dir())
    folder = config.run.with_name(f"{config.run.name}-proposed")
    names = [f"proposed-{index}" for index in range(PROPOSED)]
    if not all((folder / f"{name}.yaml").is_file() for name in names):
        verified = config.model_copy(update={"verify": config.verify.model_copy(update={"candidates": PROPOSED})})
        for candidate in propose(verified):
            save_genotype(candidate.genotype, folder / f"{candidate.name}.yaml")
    found = [(SEARCHED, name, load_genotype(folder / f"{name}.yaml")) for name in names]
    return found + [(budget, "front", load_genotype(config.run / "front" / f"{budget:g}GFLOPs")) for budget in FRONT]


def networks_of_rules(folder: Path) -> list[tuple[float, str, Genotype]]:
    """Return the networks that need no search, with their cost and row; the folder keeps them."""
    names = [(budget, name) for budget in BUDGETS for name in ("plain", *RULES)]
    files = [folder / f"{budget:g}-{name}.yaml" for budget, name in names]
    if not all(file.is_file() for file in files):
        operations = count_costs("FLOPs", SPACE, DeploymentTarget(480, 640, CPU))
        shapes = {name: of_shape(shape) for name, shape in RULES.items()}
        for (budget, name), file in zip(names, files, strict=True):
            if name == "plain":
                plain = plain_network(SPACE, operations, ((1 - BAND) * budget * 1e9, (1 + BAND) * budget * 1e9))
                assert plain is not None
                save_genotype(SPACE.genotype(plain), file)
            else:
                save_genotype(of_cost(shapes[name], budget), file)
    return [(budget, name, load_genotype(file)) for (budget, name), file in zip(names, files, strict=True)]


def controls() -> list[tuple[float, int, Genotype]]:
    """Return networks of the benchmark that are trained again, with their cost and number.

    They tell by how much the losses of today's trainings differ from those of the benchmark's.
    """
    return [
        (budget, index, network.genotype)
        for budget in BUDGETS
        for index, network in enumerate(
            random.Random(0).sample([each for each in trained_networks() if each.budget == budget], CONTROLS)
        )
    ]


def untrained_rows(run: Path, folders: Sequence[Path], rules: Sequence[tuple[float, str, Genotype]]) -> list[Row]:
    """Score the plain network of each cost with fresh weights, and the methods without a network."""
    _, parts = recipe(run, folders)

    def scored(fuse: Fuse) -> dict[str, str]:
        scores = validate(fuse, parts.pairs.sets, parts.loss, CPU, metrics=METRICS).scores["mean"]
        return {f"loss_{STEPS}": f"{scores['loss']:.5f}", **{name: f"{scores[name]:.5f}" for name in METRICS}}

    rows = []
    trivial = {name: scored(fuse) for name, fuse in TRIVIAL.items()}
    for budget, rule, genotype in rules:
        if rule == "plain":
            for seed in range(TRAININGS):
                seed_everything(seed)
                cells = dict(zip(("channels", "stages"), described(genotype), strict=True))
                scores = scored(build_network(genotype).eval())
                rows.append({"budget": f"{budget:g}", "row": UNTRAINED, **cells, "seed": str(seed), **scores})
            rows += [{"budget": f"{budget:g}", "row": name, "seed": "0", **scores} for name, scores in trivial.items()]
    return rows


def losses_of(rows: Sequence[Row], budget: float, row: str, search_seed: str = "") -> Losses:
    """Return the losses of the networks of a row, (networks, training seeds)."""
    found: dict[str, list[float]] = {}
    for each in sorted(rows, key=lambda each: (each["row"], int(each["seed"]))):
        if (each["budget"], each["search seed"]) == (f"{budget:g}", search_seed) and each["row"].startswith(row):
            found.setdefault(each["row"], []).append(float(each["loss_240"]))
    return np.array(list(found.values()))


def best_of(losses: Losses, count: int) -> float:
    """Return the expected loss of the best of some networks drawn at random, by a training with one seed.

    Its loss is the mean over the other seeds, and all seeds choose in turn.
    """
    networks, seeds = losses.shape
    # The one of rank i is the best of those drawn if all others come from the ranks after it.
    chances = [math.comb(networks - 1 - rank, count - 1) / math.comb(networks, count) for rank in range(networks)]
    others = [np.delete(losses, seed, axis=1).mean(1)[losses[:, seed].argsort()] for seed in range(seeds)]
    return float(np.mean(others, 0) @ chances)


def shifts(rows: Sequence[Row]) -> Losses:
    """Return by how much the loss of each control differs from the benchmark's with the same seeds, (controls,)."""
    found = []
    for budget, index, genotype in controls():
        losses = losses_of(rows, budget, f"control {index}")[0]
        found.append(np.mean(losses - query(genotype).final[: len(losses)]))
    return np.array(found)


def values_of(searched: Losses, table: Losses, finest: NDArray[np.bool_], ruled: Mapping[str, Losses]) -> Values:
    """Return the loss of each row, for each search where it depends on the search.

    Args:
        searched: Losses of the networks of each search, (searches, networks, trainings).
        table: Losses of the benchmark's networks, shifted, (networks, trainings).
        finest: Which of these have the finest level.
        ruled: Losses of the rows that need no search, (trainings,), by name.
    """
    values: Values = {"found": np.array([best_of(each, len(each)) for each in searched])}
    if searched.shape[1] > 1:
        values["of the weights"] = searched[:, 1].mean(1)
        values["most probable"] = searched[:, 0].mean(1)
    for count in (PROPOSED, EQUAL_TIME):
        values[f"random search, {count}"] = best_of(table, count)
    values["random"] = table.mean()
    if 1 < finest.sum() < len(table):
        values["random, finest level"] = table[finest].mean()
    return values | {name: losses.mean() for name, losses in ruled.items()}


def compared(rows: Sequence[Row], budget: float) -> list[list[str]]:
    """Compare the row "found" of a cost with the others: loss, difference, interval, and searches that are better.

    The bootstrap draws anew the searches, the networks of the benchmark, the controls, by whose mean difference the
    benchmark's losses are shifted, and the trainings of the networks without a search, less what their seeds do to all
    networks.
    """
    seeds = sorted({each["search seed"] for each in rows if each["search seed"]}, key=int)
    benchmark = [network for network in trained_networks() if network.budget == budget]
    row = "proposed" if budget == SEARCHED else "front"
    searched = np.stack([losses_of(rows, budget, row, seed) for seed in seeds])
    table = np.array([network.final[: searched.shape[2]] for network in benchmark])
    finest, shift = np.array([network.genotype.widths[0] > 0 for network in benchmark]), shifts(rows)
    # A seed draws the same crops for all, which does the same to all; it would count where trainings are drawn anew.
    of_seeds = table.mean(0) - table.mean()
    ruled = {name: losses_of(rows, budget, name)[0] - of_seeds for name in ("plain", *RULES)}
    ruled |= {name: losses_of(rows, budget, name)[0] for name in (UNTRAINED, *TRIVIAL)}
    values = values_of(searched, table + shift.mean(), finest, ruled)
    generator, resampled = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        networks, again = (generator.integers(len(each), size=len(each)) for each in (table, shift))
        redrawn = {name: losses[generator.integers(len(losses), size=len(losses))] for name, losses in ruled.items()}
        searches = generator.integers(len(searched), size=len(searched))
        drawn = values_of(searched[searches], table[networks] + shift[again].mean(), finest[networks], redrawn)
        resampled.append({name: np.mean(losses) for name, losses in drawn.items()})
    found = values.pop("found")
    lines = [["found", f"{np.mean(found):.4f}", "", "", ""]]
    for name, losses in values.items():
        difference = found - losses
        low, high = np.quantile([each["found"] - each[name] for each in resampled if name in each], (0.025, 0.975))
        better = f"{np.sum(difference < 0)} of {len(seeds)}"
        interval = f"{low:+.4f} to {high:+.4f}"
        lines.append([name, f"{np.mean(losses):.4f}", f"{np.mean(difference):+.4f}", interval, better])
    return lines


def report(rows: Sequence[Row]) -> str:
    """Write the comparisons of all costs."""
    counts = Counter(each["seed"] for each in rows if each["loss_60"])
    seeds = [seed for seed, count in counts.items() if count == max(counts.values())]  # with which all are trained
    rows = [each for each in rows if each["seed"] in seeds]
    shift = shifts(rows)
    lines = [
        "# Searches on the ruler of the benchmark",
        "",
        f"`python -m benchmarks.table_searches`; {len(seeds)} trainings of each network. The losses of the"
        f" benchmark are shifted by {shift.mean():+.4f}, the mean difference of {len(shift)} networks that were"
        " trained again.",
        "",
    ]
    for budget in BUDGETS:
        lines += [
            f"{budget:g} GFLOPs. Loss after 240 steps; that of `found` less that of the row, with the 95 % interval by"
            " bootstrap; searches with which `found` is better.",
            "",
            "| row | loss | found - row | interval | better |",
            "|---|---:|---:|---:|---:|",
            *(f"| {' | '.join(cells)} |" for cells in compared(rows, budget)),
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Search, train and report what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--part", default="0/1", help="of the trainings, like 0/2, for two processes")
    arguments = parser.parse_args()
    if arguments.run is not None:
        run = arguments.run
        pairs = link_training_pairs(arguments.data, run / "data")
        networks = {}
        front = [f"{budget:g}GFLOPs" for budget in FRONT]
        for seed in arguments.seeds:
            config = SearchConfig(
                run=run / f"search-{seed}",
                seed=seed,
                data={"root": pairs},
                cost={"budget": f"{SEARCHED:g}GFLOPs", "front": front},
                verify={"candidates": 0},
            )
            networks |= {(cost, row, str(seed)): genotype for cost, row, genotype in networks_of_search(config)}
        rules = networks_of_rules(run / "rules")
        networks |= {(cost, row, ""): genotype for cost, row, genotype in rules}
        networks |= {(cost, f"control {index}", ""): genotype for cost, index, genotype in controls()}
        distinct = {described(genotype): genotype for genotype in networks.values()}
        train_missing(run, arguments.data, list(distinct.values()), TRAININGS, arguments.part)
        trainings = {key(row): row for row in read(run.glob("rows*.csv"))}
        rows = [
            {"budget": f"{cost:g}", "row": row, "search seed": search_seed, **trainings[training]}
            for (cost, row, search_seed), genotype in networks.items()
            for seed in range(TRAININGS)
            if (training := (*described(genotype), str(seed))) in trainings
        ]
        heading = list(rows[0])
        rows += untrained_rows(run, arguments.data, rules)
        write_atomically(TABLE, csv_text(heading, [[row.get(name, "") for name in heading] for row in rows]))
    with TABLE.open(encoding="utf-8", newline="") as file:
        text = report(list(csv.DictReader(file)))
    write_atomically(TABLE.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
