"""Whether a search finds better networks than chance, shrinking or a person, at equal cost of network and of search.

    python -m benchmarks.search_quality RUN --data DIR [--data DIR …] [--seeds 0 1 2 3 4] [--budget 1GFLOPs]

DIR holds infrared-visible pairs with train.txt and val.txt. Each seed searches on the training pairs alone, of which it
holds out some to validate and verify; then the network of each row is trained on all of them, by one recipe, and scored
on the validation pairs, which the search has not seen. The size of the crops was chosen on them. Rows:

- found: of the networks that the search proposes, the one that trains best (`best_proposed` of the verification);
- returned: what the search keeps after the verification;
- random search: of the random networks in the verification, the one that trains best; without a search, it takes less
  than half the time;
- random: a random network of the cost of `found`;
- most probable: what the search chose before the verification, which may be below the budget;
- plain: the plain network of the verification, which has one operator everywhere;
- shrunk: `ivif` with its channels in the same proportions, as many as the budget allows;
- hand-made: the cells of `tim_light` at each level of the pyramid, with channels in the proportions of `ivif`;
- untrained: the network found, with fresh weights; and methods without a network.

Networks cost the same, but for `most probable`: within 5 % as many operations as the budget, or where it is a time,
about the time of `found`. Times are measured side by side; run nothing else then: in the table those of `shrunk`,
chosen beside other programs, are up to 10 % from that of `found`. Finished parts are not repeated, so that two calls
can share RUN, with different seeds. Losses and metrics are added to benchmarks/results/search-quality.csv pair by pair;
search-quality.md compares them. The rows with fewer than 16,000 crops are of an earlier state; "crops of 128" says that
they were smaller, and there `random` is of any cost.
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.tabular import CPU, training
from timfuse.cost import DeploymentTarget
from timfuse.genotypes import CellGenotype, Genotype, in_words, load_genotype, save_genotype
from timfuse.objectives.metrics import fusion_metrics, ruler_of
from timfuse.objectives.trivial_fusion import TRIVIAL
from timfuse.operators import build_network, count_flops, count_parameters, receptive_field
from timfuse.runtime.csv_text import csv_text
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.files import write_atomically
from timfuse.runtime.run_files import GENOTYPE_FILE
from timfuse.runtime.seeds import seed_everything
from timfuse.search import SearchConfig, search, verify
from timfuse.search.candidate_training import Candidate
from timfuse.search.candidates import BAND
from timfuse.training import TrainConfig
from timfuse.training.train_setup import TrainParts, open_parts

RESULTS = Path(__file__).parent / "results"
TABLE = RESULTS / "search-quality.csv"
METRICS = ruler_of("infrared-visible")
KEYS = ("budget", "row", "seed", "set", "pair")
ROWS = ("found", "shrunk", "plain", "random", "random search", "most probable", "returned", "hand-made")
UNTRAINED = "untrained"
STEPS, BATCH, CROP = 4000, 4, 160
_SPACED = 6  # every so many networks of a shape are timed
TARGET = DeploymentTarget(480, 640, CPU)
RESAMPLES = 10_000
Row = dict[str, str]
Fuse = Callable[[Tensor, Tensor], Tensor]


def link_training_pairs(folders: Sequence[Path], into: Path) -> tuple[Path, ...]:
    """Make folders with the training pairs alone, as links."""
    linked = []
    for folder in folders:
        names = set((folder / "train.txt").read_text(encoding="utf-8").split())
        for source in filter(Path.is_dir, folder.iterdir()):
            target = into / folder.name / source.name
            target.mkdir(parents=True, exist_ok=True)
            for file in source.iterdir():
                if file.stem in names and not (target / file.name).exists():
                    (target / file.name).symlink_to(file.resolve())
        linked.append(into / folder.name)
    return tuple(linked)


def search_config(run: Path, data: tuple[Path, ...], budget: str, seed: int) -> SearchConfig:
    """Return the config of a search: the default with a budget."""
    return SearchConfig(run=run, seed=seed, data={"root": data}, cost={"budget": budget})


def searched(config: SearchConfig) -> dict[str, Genotype]:
    """Search and verify, unless that has been done; return the network of each row."""
    files = {name: config.run.with_name(f"{config.run.name}-{name.replace(' ', '-')}.yaml") for name in ROWS}
    if not all(file.is_file() for file in files.values()):
        started, begin = config.run.is_dir(), time.perf_counter()
        alone = config.model_copy(update={"verify": config.verify.model_copy(update={"candidates": 0})})
        if not (config.run / GENOTYPE_FILE).is_file():
            search(alone, resume=started)
        times = [time.perf_counter() - begin]
        verification = verify(config)
        times.append(time.perf_counter() - begin)
        candidates = {each.name: each for each in verification.candidates}
        print(f"{config.run}: {times} s until searched and verified", flush=True)
        best = verification.best_random
        assert best is not None
        ours = verification.best_proposed
        random = next(
            each
            for name, each in candidates.items()
            if name.startswith("random") and abs(_cost(each) - _cost(ours)) <= BAND * _cost(ours)
        )
        budget = config.cost.parsed_budget
        assert budget is not None
        shapes = [
            of_time(shape, ours.genotype) if budget.kind == "ms" else of_cost(of_shape(shape), budget.amount / 1e9)
            for shape in (shrunk, hand_made)
        ]
        chosen = (candidates["plain-0"], random, best, candidates["proposed-0"], verification.best)
        networks = [ours.genotype, shapes[0], *(candidate.genotype for candidate in chosen), shapes[1]]
        latencies = TARGET.measure([TARGET.forward_pass(build_network(network)) for network in networks])
        for file, network, latency in zip(files.values(), networks, latencies, strict=True):
            save_genotype(replace(network, provenance={"latency": {"milliseconds": round(latency, 2)}}), file)
    return {name: load_genotype(file) for name, file in files.items()}


def _cost(candidate: Candidate) -> float:
    return candidate.gflops if candidate.milliseconds is None else candidate.milliseconds


def of_shape(shape: Callable[[Sequence[int]], Genotype]) -> list[tuple[float, Genotype]]:
    """List networks whose channels have about the proportions of `ivif`, by rising cost in GFLOPs."""
    full = load_genotype("ivif").widths
    widths = {
        tuple(max(2, 2 * (int(width * factor / 200) + more)) for width, more in zip(full, ups, strict=True))
        for factor in range(5, 120, 5)
        for ups in product((0, 1), repeat=len(full))  # channels are even: each is rounded down or up
    }
    costs = {each: count_flops(build_network(shape(each)), 480, 640) / 1e9 for each in sorted(widths)}
    return [(costs[each], shape(each)) for each in sorted(costs, key=costs.__getitem__)]


def of_cost(networks: Sequence[tuple[float, Genotype]], gflops: float) -> Genotype:
    """Return the network of a list from `of_shape` whose cost is nearest to a number."""
    cost, found = min(networks, key=lambda each: abs(each[0] - gflops))
    assert abs(cost - gflops) <= BAND * gflops, cost
    return found


def of_time(shape: Callable[[Sequence[int]], Genotype], other: Genotype) -> Genotype:
    """Return the largest network of a shape that takes at most 3 % longer than another network."""
    networks = [network for _, network in of_shape(shape)[::_SPACED]]
    passes = [TARGET.forward_pass(build_network(network)) for network in (other, *networks)]
    least, *latencies = TARGET.measure(passes)
    within = [network for network, latency in zip(networks, latencies, strict=True) if latency <= 1.03 * least]
    return within[-1] if within else networks[0]


def shrunk(widths: Sequence[int]) -> Genotype:
    """Return `ivif` with other channels."""
    return replace(load_genotype("ivif"), channels=tuple(widths))


def hand_made(widths: Sequence[int]) -> Genotype:
    """Return a pyramid network with the cells of `tim_light` at each level."""
    operators = load_genotype("tim_light").cells[0].operators
    cells = tuple(CellGenotype("stage", operators, level=level) for level in range(len(widths)))
    return Genotype("hand-made", "infrared-visible", "pyramid", tuple(widths), cells, "none", "half", "bands")


def train_network(config: TrainConfig, parts: TrainParts, genotype: Genotype) -> torch.nn.Module:
    """Train a network to the end."""
    *_, (_, network) = training(config, parts, genotype)
    return network.eval()


@torch.no_grad()
def scored(fuse: Fuse, parts: TrainParts) -> Iterator[Row]:
    """Fuse and score each validation pair."""
    for pairs in parts.pairs.sets:
        for name, batch in pairs.validation_pairs(CPU):
            fused = fuse(batch.first, batch.second)
            images = [(image.clamp(0, 1) * 255).round().byte() for image in (fused, batch.first, batch.second)]
            values = fusion_metrics(*images, METRICS)
            loss = parts.loss(fused, batch.first, batch.second).item()
            yield {
                "set": pairs.name,
                "pair": name,
                "loss": f"{loss:.5f}",
                **{metric: f"{values[metric].item():.5f}" for metric in METRICS},
            }


def read(*files: Path) -> list[Row]:
    """Read the rows of files, each one once; an absent file has none."""
    rows: dict[tuple[str, ...], Row] = {}
    for path in filter(Path.is_file, files):
        with path.open(encoding="utf-8", newline="") as file:
            rows |= {tuple(row[key] for key in KEYS): row for row in csv.DictReader(file)}
    return list(rows.values())


def write(rows: Sequence[Row], file: Path) -> None:
    """Write rows."""
    write_atomically(file, csv_text(list(rows[0]), [list(row.values()) for row in rows]))


def train_row(run: Path, folders: Sequence[Path], budget: str, seed: int, name: str, genotype: Genotype | None) -> None:
    """Train the network of a row and add its scores to the table, unless they are there.

    Args:
        genotype: None for a row without a network.
    """
    own = run / f"rows-{budget}-{seed}.csv"
    rows = read(own)
    if any(row["row"] == name for row in rows):
        return
    cost = ("", "", "", "", "")
    if genotype is not None:
        built = build_network(genotype)
        gflops, sees = count_flops(built, 480, 640) / 1e9, str(receptive_field(genotype))
        latency: Any = genotype.provenance["latency"]
        milliseconds = str(latency["milliseconds"])
        cost = f"{gflops:.4f}", milliseconds, str(count_parameters(built)), sees, in_words(genotype)
        same = [row for row in rows if row["network"] == cost[-1] and row["row"] != UNTRAINED]
        if same and name != UNTRAINED:  # in another row
            first = same[0]["row"]
            write(rows + [row | {"row": name} for row in same if row["row"] == first], own)
            return
    config = TrainConfig(
        run=run,
        seed=seed,
        device="cpu",
        data={"root": tuple(folders), "crop": CROP, "batch_size": BATCH, "validation_pairs": 16},
        train={"steps": STEPS, "warmup": STEPS // 30},
    )
    parts = open_parts(config, CPU, ALONE, resume=False)
    if genotype is None:
        fuse: Fuse = TRIVIAL[name]
    elif name == UNTRAINED:
        seed_everything(seed)
        fuse = build_network(genotype).eval()
    else:
        fuse = train_network(config, parts, genotype)
    columns = (*KEYS[:3], "crops", "gflops", "milliseconds", "parameters", "receptive field", "network")
    beginning = dict(zip(columns, (budget, name, str(seed), str(STEPS * BATCH), *cost), strict=True))
    write(rows + [beginning | row for row in scored(fuse, parts)], own)


def difference(rows: Sequence[Row], name: str, other: str, column: str) -> NDArray[np.float64]:
    """Return the differences of two rows of the table, (seeds, pairs); data sets weigh the same."""
    values: dict[str, dict[tuple[str, str, str], float]] = {name: {}, other: {}}
    for row in rows:
        if row["row"] in values:
            values[row["row"]][row["seed"], row["set"], row["pair"]] = float(row[column])
    seeds = sorted({key[0] for key in values[name]} & {key[0] for key in values[other]})
    pairs = sorted({key[1:] for key in values[name]})
    sizes = {each: sum(pair[0] == each for pair in pairs) for each in {pair[0] for pair in pairs}}
    weights = np.array([len(pairs) / len(sizes) / sizes[pair[0]] for pair in pairs])
    found = [[values[name][seed, *pair] - values[other][seed, *pair] for pair in pairs] for seed in seeds]
    return np.array(found) * weights


def interval(differences: NDArray[np.float64], generator: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over seeds and pairs, both drawn anew."""
    seeds, pairs = differences.shape
    means = [
        differences[np.ix_(generator.integers(seeds, size=seeds), generator.integers(pairs, size=pairs))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def report(table: Sequence[Row]) -> str:
    """Compare the row "found" with the others, for each budget."""
    generator = np.random.default_rng(0)
    columns = ("loss", *METRICS)
    lines = []
    for budget in dict.fromkeys(row["budget"] for row in table):
        rows = [row for row in table if row["budget"] == budget]
        seeds = len({row["seed"] for row in rows})
        lines += [
            f"Budget {budget}, {seeds} seeds, trained on {int(rows[0]['crops']):,} crops. Mean of each row; the loss of"
            " `found` less that of the row, with the 95 % interval by bootstrap over seeds and pairs; the number of"
            " seeds whose interval over the pairs is below 0, and above.",
            "",
            f"| row | GFLOPs | ms | receptive field | {' | '.join(columns)} | found - row | better | worse |",
            "|---|" + "---:|" * (len(columns) + 6),
        ]
        for name in dict.fromkeys(["found", *(row["row"] for row in rows)]):
            own = [row for row in rows if row["row"] == name]
            means = [_mean(own, column) for column in columns]
            kinds = ("gflops", "milliseconds", "receptive field")
            costs = [_range([float(row[kind]) for row in own if row[kind]]) for kind in kinds]
            cells = [name, *costs, *(f"{mean:.4f}" for mean in means), "", "", ""]
            if name != "found":
                against = difference(rows, "found", name, "loss")
                low, high = interval(against, generator)
                each = [interval(row[None], generator) for row in against]
                better, worse = sum(high < 0 for _, high in each), sum(low > 0 for low, _ in each)
                cells[-3:] = f"{against.mean():+.4f} ({low:+.4f} to {high:+.4f})", str(better), str(worse)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _range(values: Sequence[float]) -> str:
    """Write the smallest and the largest value."""
    return " to ".join(f"{value:.3g}" for value in dict.fromkeys((min(values), max(values)))) if values else ""


def _mean(rows: Sequence[Row], column: str) -> float:
    """Average a column; data sets weigh the same."""
    sets = {row["set"] for row in rows}
    return float(np.mean([np.nanmean([float(row[column]) for row in rows if row["set"] == name]) for name in sets]))


def main() -> None:
    """Search, train and report what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--budget", default="1GFLOPs")
    arguments = parser.parse_args()
    if arguments.run is not None:
        pairs = link_training_pairs(arguments.data, arguments.run / "data")
        runs = {seed: arguments.run / f"search-{arguments.budget}-{seed}" for seed in arguments.seeds}
        networks = {seed: searched(search_config(run, pairs, arguments.budget, seed)) for seed, run in runs.items()}
        for name, seed in product((*ROWS, UNTRAINED, *TRIVIAL), arguments.seeds):
            genotype = networks[seed].get("found" if name == UNTRAINED else name)
            train_row(arguments.run, arguments.data, arguments.budget, seed, name, genotype)
        write(read(TABLE, *sorted(arguments.run.glob("rows-*.csv"))), TABLE)
    text = report(read(TABLE))
    write_atomically(RESULTS / "search-quality.md", text)
    print(text)


if __name__ == "__main__":
    main()
