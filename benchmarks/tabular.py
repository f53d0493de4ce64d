"""Train random networks of the pyramid space with several seeds, for the table that searches can be judged by.

    python -m benchmarks.tabular runs/tabular --data DIR [--data DIR …] [--networks 34] [--seeds 4]

Every network has one of three costs, and is trained by one recipe. The rows are added to `runs/tabular/rows*.jsonl`;
trainings that have rows are not repeated. `--export FILE` writes all rows as the table that `timfuse.search.benchmark`
reads.
"""

import argparse
import csv
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from timfuse.cost import DeploymentTarget
from timfuse.cost.cost_model import count_costs
from timfuse.genotypes import Genotype
from timfuse.objectives.metrics import ruler_of
from timfuse.operators import build_network, count_flops, count_parameters
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.seeds import seed_everything
from timfuse.search import SearchConfig
from timfuse.search.benchmark import BUDGETS, METRICS
from timfuse.search.candidates import BAND, network_key, uniform_network
from timfuse.training import TrainConfig
from timfuse.training.train_recipe import train_step
from timfuse.training.train_setup import TrainParts, open_parts, set_up
from timfuse.training.train_validation import validate

SPACE = SearchConfig().space.search_space
CPU = torch.device("cpu")


def networks(count: int) -> list[tuple[float, Genotype]]:
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
    return [(budget, kept[index]) for index in range(count) for budget, kept in found.items()]


def trained(config: TrainConfig, parts: TrainParts, genotype: Genotype) -> dict[str, Any]:
    """Train a network and return its validation losses at three times, and its metrics."""
    started, steps = time.monotonic(), config.train.steps
    seed_everything(config.seed)
    state = set_up(config, genotype, CPU)
    crops = config.data.crops
    batches = parts.pairs.batches("train", 0, steps, seed=config.seed, device=CPU, ranks=ALONE, **crops)
    losses = {}
    for state.step in range(steps):
        train_step(config, state, parts, next(batches), ALONE)
        if state.step + 1 in (steps // 4, steps // 2):
            scores = validate(state.average.module, parts.pairs.sets, parts.loss, CPU, metrics=()).scores
            losses[state.step + 1] = scores["mean"]["loss"]
    metrics = ruler_of("infrared-visible")
    scores = validate(state.average.module, parts.pairs.sets, parts.loss, CPU, metrics=metrics).scores
    losses[steps] = scores["mean"]["loss"]
    return {"losses": losses, "scores": scores, "seconds": round(time.monotonic() - started, 1)}


def export(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the rows as a table, those of a network one after another."""
    table = []
    for row in rows:
        network, metrics = json.loads(row["network"]), row["scores"]["mean"]
        table.append(
            {
                "channels": "-".join(map(str, network["channels"])),
                "stages": "|".join(",".join(blocks) for blocks in network["cells"]),
                "gflops": f"{row['gflops']:.4f}",
                "parameters": row["parameters"],
                "seed": row["seed"],
                **{f"loss_{steps}": f"{loss:.5f}" for steps, loss in row["losses"].items()},
                **{name: f"{metrics[name]:.5f}" for name in METRICS},
            }
        )
    table.sort(key=lambda row: (float(row["gflops"]), row["channels"], row["stages"], row["seed"]))
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--networks", type=int, default=34, help="number for each budget")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--export", type=Path, help="train nothing, write the table")
    parser.add_argument("--part", default="0/1", help="of the trainings, like 0/2, for two processes")
    arguments = parser.parse_args()
    part, count = map(int, arguments.part.split("/"))
    arguments.run.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for file in arguments.run.glob("rows*.jsonl") for line in file.open(encoding="utf-8")]
    if arguments.export is not None:
        export(rows, arguments.export)
        return
    done = {(row["network"], row["seed"]) for row in rows}
    steps = arguments.steps
    config = TrainConfig(
        run=arguments.run,
        data={"root": tuple(arguments.data), "crop": 128, "batch_size": 3, "validation_pairs": 8},
        train={"steps": steps, "warmup": steps // 10},
    )
    parts = open_parts(config, CPU, ALONE, resume=False)
    plan = [(seed, *item) for seed in range(arguments.seeds) for item in networks(arguments.networks)]
    for seed, budget, genotype in plan[part::count]:
        network = {"channels": genotype.channels, "cells": [list(cell.operators) for cell in genotype.cells]}
        name = json.dumps(network)
        if (name, seed) in done:
            continue
        built = build_network(genotype)
        row = {
            "network": name,
            "budget": budget,
            "gflops": count_flops(built, 480, 640) / 1e9,
            "parameters": count_parameters(built),
            "seed": seed,
            **trained(config.model_copy(update={"seed": seed}), parts, genotype),
        }
        with (arguments.run / f"rows-{part}-{count}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
