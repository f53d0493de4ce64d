"""Whether a search finds what training alone finds: all networks of a small space trained one by one, and every
estimator against them.

Space: two operators in one cell, eight candidates each, so 64 networks, every one of them trained for the same short
budget with several seeds. Its quality is the outer loss of the search on whole validation images. All parts go on where
they stopped.

    python -m benchmarks.search_quality train DIR       # infrared-visible pairs; ten seconds a network
    python -m benchmarks.search_quality search DIR      # every estimator, several seeds
    python -m benchmarks.search_quality report          # benchmarks/results/search-quality.md, from both
"""

import argparse
import csv
import itertools
import random
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from timfuse.bilevel import ESTIMATORS
from timfuse.genotypes import CellGenotype, Genotype, save_genotype
from timfuse.objectives import FusionLoss
from timfuse.objectives.loss_section import LossSection
from timfuse.operators import build_network
from timfuse.runtime.history import read_history
from timfuse.runtime.run_files import HISTORY_FILE
from timfuse.runtime.weights import load_into
from timfuse.search import SearchConfig, search
from timfuse.search.search_config import SearchDataSection, SearchSection, SpaceSection
from timfuse.training import TrainConfig, train

RESULTS = Path(__file__).parent / "results"
NETWORKS = RESULTS / "search-quality-networks.csv"
SEARCHES = RESULTS / "search-quality-searches.csv"
OPERATORS = (
    "dense_k3_d1",
    "residual_k3_d1",
    "residual_k5_d1",
    "dilated_k3_d2",
    "separable_k3",
    "channel_attention_k3",
    "spatial_attention_k3",
    "identity",
)
SPACE = SpaceSection(preset="tim", channels=8, cells=("successive",), steps=2, operators=OPERATORS, norm="none")
CROP, BATCH, STEPS = 48, 4, 300
SEARCH = {"steps": 400, "warmup": 50, "weight_learning_rate": 4e-3, "architecture_learning_rate": 2e-2}
STEP_NAMES = ("first", "second")
OUTER, INNER = LossSection(base="saliency-outer"), LossSection(base="saliency")
Network = tuple[str, str]  # its two operators


def train_all(data: Path, seeds: list[int], folder: Path) -> None:
    """Train every network of the space alone, and add a row for each to the table."""
    done = {(row["first"], row["second"], int(row["seed"])) for row in read(NETWORKS)}
    for seed, first, second in itertools.product(seeds, OPERATORS, OPERATORS):
        if (first, second, seed) not in done:
            append(
                NETWORKS,
                {"first": first, "second": second, "seed": seed} | train_one(data, (first, second), seed, folder),
            )


def train_one(data: Path, operators: tuple[str, ...], seed: int, folder: Path) -> dict[str, float]:
    """Train one network with the inner loss of the search; return its outer loss and its metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join((*operators, str(seed)))
    genotype = Genotype(
        name, "infrared-visible", "fusion", SPACE.channels, (CellGenotype("successive", operators),), norm=SPACE.norm
    )
    save_genotype(genotype, folder / f"{name}.yaml")
    config = TrainConfig(
        run=folder / name,
        seed=seed,
        device="cpu",
        genotype=str(folder / f"{name}.yaml"),
        data={"root": data, "crop": CROP, "batch_size": BATCH, "validation_pairs": 4},
        train={
            "steps": STEPS,
            "learning_rate": 4e-3,
            "warmup": 20,
            "clip": 1.0,
            "ema": 0.98,
            "validate_every": STEPS,
            "checkpoint_every": 10**6,
            "images": 0,
        },
        loss=INNER,
    )
    start = time.perf_counter()
    training = train(config, overwrite=True)
    seconds = time.perf_counter() - start
    network = build_network(genotype).eval()
    load_into(network, config.run)
    outer = score(network, config)
    shutil.rmtree(config.run)
    (folder / f"{name}.yaml").unlink()
    return {"outer_loss": outer, "seconds": round(seconds, 1)} | training.scores["best"]["mean"]


@torch.no_grad()
def score(network: torch.nn.Module, config: TrainConfig) -> float:
    """Average the outer loss of the search over whole validation images."""
    loss = FusionLoss(**OUTER.model_dump())
    (pairs,) = config.data.open_pairs("infrared-visible", None, config.seed).sets
    batches = (batch for _, batch in pairs.validation_pairs("cpu"))
    return statistics.fmean(
        loss(network(batch.first, batch.second), batch.first, batch.second).item() for batch in batches
    )


def search_all(data: Path, estimators: list[str], seeds: list[int], folder: Path) -> None:
    """Search with every estimator, and add a row for each to the table."""
    done = {(row["estimator"], int(row["seed"])) for row in read(SEARCHES)}
    for seed, estimator in itertools.product(seeds, estimators):
        if (estimator, seed) not in done:
            append(SEARCHES, {"estimator": estimator, "seed": seed} | search_one(data, estimator, seed, folder))


def search_one(data: Path, estimator: str, seed: int, folder: Path) -> dict[str, object]:
    """Search the space; return what was found, the last probabilities, and how long it took."""
    config = SearchConfig(
        run=folder / f"{estimator}-{seed}",
        seed=seed,
        device="cpu",
        data=SearchDataSection(root=data, crop=CROP, batch_size=BATCH),
        space=SPACE,
        search=SearchSection(estimator=estimator, outer_loss=OUTER, inner_loss=INNER, **SEARCH),
    )
    start = time.perf_counter()
    genotype = search(config, overwrite=True).genotype
    seconds = time.perf_counter() - start
    edges = read_history(config.run / HISTORY_FILE)[-1]["probability"].values()
    return {
        "first": genotype.cells[0].operators[0],
        "second": genotype.cells[0].operators[1],
        "validation": genotype.provenance["metrics"]["derived"]["mean"]["outer_loss"],
        "seconds": round(seconds, 1),
        **{f"{step} {name}": p for step, row in zip(STEP_NAMES, edges, strict=True) for name, p in row.items()},
    }


def report() -> None:
    """Rank what the searches found among all networks, and write the table."""
    losses: dict[Network, list[float]] = defaultdict(list)  # outer loss of each seed
    seconds = []
    for row in read(NETWORKS):
        losses[row["first"], row["second"]].append(float(row["outer_loss"]))
        seconds.append(float(row["seconds"]))
    means = {network: statistics.fmean(values) for network, values in losses.items()}
    ranks = {network: rank + 1 for rank, network in enumerate(sorted(means, key=means.__getitem__))}
    quality = [
        [-statistics.fmean(means[network] for network in means if network[step] == name) for name in OPERATORS]
        for step in range(2)
    ]
    header = "estimator|searches|ranks of what they found|mean rank|picked by validation|rank correlation of operators"
    lines = [f"| {header.replace('|', ' | ')} | seconds | random search as long |", "|---" * 8 + "|"]
    searches = read(SEARCHES)
    for estimator in ESTIMATORS:
        rows = [row for row in searches if row["estimator"] == estimator]
        if not rows:
            continue
        found = [ranks[row["first"], row["second"]] for row in rows]
        picked = min(zip(rows, found, strict=True), key=lambda pair: float(pair[0]["validation"]))[1]
        correlations = [
            statistics.fmean(
                spearman([float(row[f"{name} {operator}"]) for operator in OPERATORS], quality[step])
                for step, name in enumerate(STEP_NAMES)
            )
            for row in rows
        ]
        cost = statistics.median(float(row["seconds"]) for row in rows)
        trials = max(1, round(cost / statistics.median(seconds)))
        lines.append(
            f"| `{estimator}` | {len(rows)} | {', '.join(map(str, found))} | {statistics.fmean(found):.1f} | {picked}"
            f" | {_mean(correlations)} | {cost:.0f} | {random_search(losses, ranks, trials):.1f} ({trials} trainings) |"
        )
    best = sorted(means, key=means.__getitem__)
    lines += [
        "",
        f"{len(means)} networks, {min(map(len, losses.values()))} seeds each. Outer loss of the best"
        f" {means[best[0]]:.5f} ({', '.join(best[0])}), the median {means[best[len(best) // 2]]:.5f},"
        f" the worst {means[best[-1]]:.5f}; deviation between seeds"
        f" {statistics.fmean(statistics.stdev(values) for values in losses.values()):.5f};"
        f" rank correlation between two seeds {_between_seeds(losses):.2f}.",
    ]
    lines += ["", "| operator | quality first | second |", "|---|---|---|"]
    for index, name in enumerate(OPERATORS):
        lines.append(f"| {name} | {-quality[0][index]:.5f} | {-quality[1][index]:.5f} |")
    text = "\n".join(lines) + "\n"
    (RESULTS / "search-quality.md").write_text(text, encoding="utf-8")
    print(text)


def random_search(losses: Mapping[Network, list[float]], ranks: Mapping[Network, int], trials: int) -> float:
    """Return the mean rank of the best of some networks drawn at random, each judged by one training."""
    draw = random.Random(0)
    networks = list(losses)
    found = []
    for _ in range(10_000):
        tried = draw.sample(networks, min(trials, len(networks)))
        found.append(ranks[min(tried, key=lambda network: draw.choice(losses[network]))])
    return statistics.fmean(found)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the rank correlation of two rows of numbers without ties."""
    rows = [torch.tensor(row).argsort().argsort().double() for row in (first, second)]
    return torch.corrcoef(torch.stack(rows))[0, 1].item()


def _between_seeds(losses: Mapping[Network, list[float]]) -> float:
    columns = list(zip(*losses.values(), strict=True))
    return statistics.fmean(spearman(a, b) for a, b in itertools.combinations(columns, 2))


def _mean(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def read(path: Path) -> list[dict[str, str]]:
    """Read a table; an absent one is empty."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, object]) -> None:
    """Add a row to a table."""
    new = not path.is_file()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("train", "search", "report"))
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--estimators", nargs="+", choices=tuple(ESTIMATORS), default=list(ESTIMATORS))
    parser.add_argument("--folder", type=Path, default=Path("runs/search-quality"))
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if arguments.part == "train":
        train_all(arguments.data, arguments.seeds, arguments.folder)
    elif arguments.part == "search":
        search_all(arguments.data, arguments.estimators, arguments.seeds, arguments.folder)
    else:
        report()
