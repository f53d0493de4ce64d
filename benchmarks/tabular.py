"""Train random networks of the pyramid space with several seeds, for the table that searches can be judged by.

    python -m benchmarks.tabular runs/tabular --data DIR [--data DIR …] [--networks 34] [--seeds 4]

Every network has one of three costs, and is trained by one recipe. The rows are added to `runs/tabular/rows*.csv`;
trainings that have rows there, or in the table that is shipped, are not repeated. `--export` adds the rows to the
shipped table, which `timfuse.search.benchmark` reads.
"""

import argparse
import csv
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from timfuse.cost import DeploymentTarget
from timfuse.cost.cost_model import count_costs
from timfuse.genotypes import Genotype
from timfuse.objectives.metrics import ruler_of
from timfuse.operators import build_network, count_flops, count_parameters
from timfuse.runtime.csv_text import csv_text
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.files import write_atomically
from timfuse.runtime.seeds import seed_everything
from timfuse.search import SearchConfig
from timfuse.search.benchmark import BUDGETS, FILE, METRICS
from timfuse.search.candidates import BAND, network_key, uniform_network
from timfuse.training import TrainConfig
from timfuse.training.train_recipe import train_step
from timfuse.training.train_setup import TrainParts, open_parts, set_up
from timfuse.training.train_validation import validate

SPACE = SearchConfig().space.search_space
STEPS = 240
CPU = torch.device("cpu")
Row = dict[str, str]


def networks(count: int) -> list[Genotype]:
    """Draw distinct networks whose cost is within 5 % of each budget, in turn."""
    generator = random.Random(0)
    model = count_costs("FLOPs", SPACE, DeploymentTarget(480, 640, CPU))
    found: dict[float, list[Genotype]] = {budget: [] for budget in BUDGETS}
    seen = set()
    while any(len(kept) < count for kept in found.values()):
        network = uniform_network(SPACE, generator)
        for budget, kept in found.items():
            near = abs(model.predict(network) / 1e9 - budget) <= BAND * budget
            if near and len(kept) < count and (key := network_key(SPACE, network)) not in seen:
                seen.add(key)
                kept.append(SPACE.genotype(network))
    return [kept[index] for index in range(count) for kept in found.values()]


def training(config: TrainConfig, parts: TrainParts, genotype: Genotype) -> Iterator[tuple[int, nn.Module]]:
    """Train a network; after each step, yield its number and the network with the averaged weights."""
    steps = config.train.steps
    seed_everything(config.seed)
    state = set_up(config, genotype, CPU)
    crops = config.data.crops
    batches = parts.pairs.batches("train", 0, steps, seed=config.seed, device=CPU, ranks=ALONE, **crops)
    for state.step in range(steps):
        train_step(config, state, parts, next(batches), ALONE)
        yield state.step + 1, state.average.module


def trained(config: TrainConfig, parts: TrainParts, genotype: Genotype) -> dict[str, Any]:
    """Train a network and return its validation losses at three times, and its metrics."""
    steps, losses = config.train.steps, {}
    for step, network in training(config, parts, genotype):
        if step in (steps // 4, steps // 2, steps):
            metrics = ruler_of("infrared-visible") if step == steps else ()
            scores = validate(network, parts.pairs.sets, parts.loss, CPU, metrics=metrics).scores
            losses[step] = scores["mean"]["loss"]
    return {"losses": losses, "scores": scores}


def described(genotype: Genotype) -> tuple[str, str]:
    """Describe a network by its channels and its stages, which are columns of the table."""
    return "-".join(map(str, genotype.widths)), "|".join(",".join(cell.operators) for cell in genotype.cells)


def table_row(genotype: Genotype, seed: int, result: Mapping[str, Any]) -> Row:
    """Write a training as a row of the table."""
    built, metrics = build_network(genotype), result["scores"]["mean"]
    channels, stages = described(genotype)
    return {
        "channels": channels,
        "stages": stages,
        "gflops": f"{count_flops(built, 480, 640) / 1e9:.4f}",
        "parameters": str(count_parameters(built)),
        "seed": str(seed),
        **{f"loss_{steps}": f"{loss:.5f}" for steps, loss in result["losses"].items()},
        **{name: f"{metrics[name]:.5f}" for name in METRICS},
    }


def key(row: Row) -> tuple[str, str, str]:
    """Return what tells trainings apart."""
    return row["channels"], row["stages"], row["seed"]


def read(files: Iterable[Path]) -> list[Row]:
    """Read the rows of files, each training once."""
    rows: dict[tuple[str, str, str], Row] = {}
    for path in filter(Path.is_file, files):
        with path.open(encoding="utf-8", newline="") as file:
            rows |= {key(row): row for row in csv.DictReader(file)}
    return list(rows.values())


def write(rows: Sequence[Row], file: Path) -> None:
    """Write rows, those of a network one after another."""
    ordered = sorted(rows, key=lambda row: (float(row["gflops"]), *key(row)))
    write_atomically(file, csv_text(list(ordered[0]), [list(row.values()) for row in ordered]))


def recipe(run: Path, folders: Sequence[Path]) -> tuple[TrainConfig, TrainParts]:
    """Open the pairs of folders for the trainings of the table."""
    config = TrainConfig(
        run=run,
        data={"root": tuple(folders), "crop": 128, "batch_size": 3, "validation_pairs": 8},
        train={"steps": STEPS, "warmup": STEPS // 10},
    )
    return config, open_parts(config, CPU, ALONE, resume=False)


def train_missing(
    run: Path, folders: Sequence[Path], networks: Sequence[Genotype], seeds: int, part: str, known: Sequence[Path] = ()
) -> None:
    """Train each network with each seed, unless that has been done, and add the rows to `run/rows-PART.csv`.

    Args:
        part: Which of the trainings, like 0/2.
        known: Tables of trainings that are not repeated, beside those in `run`.
    """
    index, count = map(int, part.split("/"))
    run.mkdir(parents=True, exist_ok=True)
    own = run / f"rows-{index}-{count}.csv"
    rows = read([own])
    done = {key(row) for row in read([*known, *run.glob("rows*.csv")])}
    config, parts = recipe(run, folders)
    plan = [(seed, genotype) for seed in range(seeds) for genotype in networks]
    for seed, genotype in plan[index::count]:
        if (*described(genotype), str(seed)) not in done:
            result = trained(config.model_copy(update={"seed": seed}), parts, genotype)
            rows.append(table_row(genotype, seed, result))
            write(rows, own)


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--networks", type=int, default=34, help="number for each budget")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--export", action="store_true", help="train nothing, add the rows to the shipped table")
    parser.add_argument("--part", default="0/1", help="of the trainings, like 0/2, for two processes")
    arguments = parser.parse_args()
    if arguments.export:
        write(read([FILE, *sorted(arguments.run.glob("rows*.csv"))]), FILE)
        return
    train_missing(arguments.run, arguments.data, networks(arguments.networks), arguments.seeds, arguments.part, [FILE])


if __name__ == "__main__":
    main()
