"""Train random networks of the pyramid space with several seeds, for the table that searches can be judged by.

    python -m benchmarks.tabular runs/tabular --data DIR [--data DIR …] [--networks 40] [--seeds 4]

Every network has one of three costs, and is trained by one recipe. The rows are added to `runs/tabular/rows*.jsonl`;
trainings that have rows are not repeated.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from timfuse.genotypes import CellGenotype, Genotype
from timfuse.objectives.metrics import ruler_of
from timfuse.operators import build_network, count_flops, count_parameters
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.seeds import seed_everything
from timfuse.training import TrainConfig
from timfuse.training.train_recipe import train_step
from timfuse.training.train_setup import TrainParts, open_parts, set_up
from timfuse.training.train_validation import validate

BUDGETS = (0.5, 1.0, 2.0)  # GFLOPs at 640x480
BAND = 0.05
WIDTHS = ((0, 8, 16, 24), (8, 16, 24, 32), (16, 24, 32, 48), (16, 24, 32, 48))
OPERATORS = (
    "identity",
    "plain_k3",
    "channel_attention_k3",
    "inverted_k3",
    "inverted_k5",
    "residual_k3_d1",
    "dilated_k3_d2",
)
BLOCKS = 3
CPU = torch.device("cpu")


def networks(count: int) -> list[tuple[float, Genotype]]:
    """Draw distinct networks of each budget, in turn."""
    found: dict[float, list[Genotype]] = {budget: [] for budget in BUDGETS}
    seen = set()
    for genotype in _drawn():
        gflops = count_flops(build_network(genotype), 480, 640) / 1e9
        for budget, kept in found.items():
            if abs(gflops - budget) <= BAND * budget and len(kept) < count and genotype not in seen:
                seen.add(genotype)
                kept.append(genotype)
        if all(len(kept) == count for kept in found.values()):
            break
    return [(budget, kept[index]) for index in range(count) for budget, kept in found.items()]


def _drawn() -> Iterator[Genotype]:
    generator = random.Random(0)
    while True:
        widths = tuple(generator.choice(options) for options in WIDTHS)
        cells = []
        for level, width in enumerate(widths):
            drawn = [generator.choice(OPERATORS) for _ in range(BLOCKS)]
            blocks = tuple(name for name in drawn if name != "identity") or ("identity",)
            if width:
                cells.append(CellGenotype("stage", blocks, level=level))
        yield Genotype(
            "network", "infrared-visible", "pyramid", widths, tuple(cells), norm="none", stem="half", head="bands"
        )


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


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--networks", type=int, default=40, help="number for each budget")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--part", default="0/1", help="of the trainings, like 0/2, for two processes")
    arguments = parser.parse_args()
    part, count = map(int, arguments.part.split("/"))
    arguments.run.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for file in arguments.run.glob("rows*.jsonl") for line in file.open(encoding="utf-8")]
    done = {(row["network"], row["seed"]) for row in rows}
    steps = arguments.steps
    config = TrainConfig(
        run=arguments.run,
        data={"root": tuple(arguments.data), "crop": 64, "batch_size": 8, "validation_pairs": 8},
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
