"""Where episodes pay: starts for tasks that want different images of the same pairs, adapted on one pair.

    python -m benchmarks.conflicts RUN [--seeds 0 1 2]

All tasks have the same rendered infrared and visible pairs, and each has a loss with one target of its own, so that a
start cannot know from the pairs what is wanted. Two tasks are held out. For each seed there is a plain training on the
others, the base, from which two trainings go on with as many network passes: `pooled` in the same way, and `episodes`
with FOMAML. Both are adapted to each task on the crops of one training pair, by the rates that `episodes` has learnt,
and `pooled` also by rates of `RATES`, of which the one with the least loss on held-out training pairs after the same
number of steps counts. All crops are the same for both. They are scored on the validation pairs, and intervals of 95 %
are by bootstrap over pairs, adaptations and seeds of the training. Finished trainings are not repeated. Values go to
benchmarks/results/conflicts.csv, the comparison to conflicts.md.
"""

import argparse
import copy
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.adaptation import Crops, mean_loss, plain, validation_crops
from timfuse.bilevel import Adaptation, adapt
from timfuse.data import write_scenes
from timfuse.data.batch_stream import cut_crops
from timfuse.data.splits import spread
from timfuse.meta_init import MetaInitConfig, meta_initialise
from timfuse.meta_init.meta_tasks import Task
from timfuse.meta_init.rates import adaptation_of, adapting_layers, load_rates
from timfuse.meta_init.trials import pair_loss
from timfuse.operators import load_network_folder
from timfuse.runtime.csv_text import csv_text
from timfuse.runtime.files import write_atomically
from timfuse.runtime.run_files import CONFIG_FILE, PICTURES_FOLDER
from timfuse.runtime.seeds import derive_seed

RESULTS = Path(__file__).parent / "results"
TARGETS = ("brighter", "exposed", "sharper", "functional", "intensity")
HELD_OUT = {"functional, swapped": "functional", "structure": "structure"}
STEPS = (0, 1, 2, 5, 10, 20, 50)
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
SCORED, ADAPTATIONS, BATCH, CROP, SIDE = 16, 4, 4, 96, 120
HEADING = ("seed", "task", "start", "rate", "adaptation", "steps", "chosen by", "pair", "loss")


def wish(target: str, *, weight: float, swapped: bool = False) -> dict[str, object]:
    """Describe a task whose loss has a single term."""
    sources = ("vis", "ir") if swapped else ("ir", "vis")
    loss = {"intensity": 0.0, "gradient": 0.0, "ssim": 0.0, target: 1.0}
    return {"root": Path(), "weight": weight, "sources": sources, "loss": loss}


def config(run: Path, part: str, seed: int) -> MetaInitConfig:
    """Put together the config of one training."""
    tasks: dict[str, object] = {f"wish-{name}": wish(name, weight=1.0) for name in TARGETS}
    for name, target in HELD_OUT.items():
        tasks[_folder_name(name)] = wish(target, weight=0.0, swapped="swapped" in name)
    episodes = part == "episodes"
    meta: dict[str, object] = {"algorithm": "fomaml" if episodes else "pooled", "warmup": 50, "learning_rate": 1.5e-3}
    # An episode of 1 to 5 steps has 4 passes on average.
    steps = {"base": 1500, "pooled": 1200, "episodes": 300}[part]
    content = {
        "run": run / f"{part}-seed{seed}",
        "seed": seed,
        "device": "cpu",
        "init": None if part == "base" else run / f"base-seed{seed}",
        "data": {"root": run / "pairs", "crop": CROP, "support": 2, "query": 2},
        "tasks": tasks,
        "inner": {"learning_rate": 7e-4},
        "meta": meta | {"steps": steps, "validate_every": steps // 3},
    }
    return MetaInitConfig.model_validate(content)


def train(run: Path, seed: int) -> None:
    """Train the starts of a seed, unless that has been done."""
    for part in ("base", "pooled", "episodes"):
        each = config(run, part, seed)
        if not (each.run / PICTURES_FOLDER / "adaptation.svg").is_file():  # which is drawn at the end
            meta_initialise(each, resume=(each.run / CONFIG_FILE).is_file())


def curve(
    start: nn.Module, rates: Adaptation, task: Task, pair: int, seed: int, parts: Sequence[Crops]
) -> list[list[list[float]]]:
    """Adapt a start on a pair; return the losses of the crops of each part after each number of steps."""
    rng = np.random.default_rng(derive_seed(seed, "conflicts", task.name))
    batches = [cut_crops(task.source, [pair] * BATCH, CROP, rng) for _ in range(STEPS[-1])]
    optimizer, losses, done = rates.build_optimizer(), [], 0
    for count in STEPS:
        start.train()
        adapt(start, partial(pair_loss, task.loss), batches[done:count], optimizer)
        done = count
        start.eval()
        losses.append([[mean_loss(start, task, Crops([""], [each])) for each in part.pairs] for part in parts])
    return losses


def rows_of(run: Path, seed: int) -> Iterator[list[object]]:
    """Yield the losses of all starts of a seed."""
    described = config(run, "episodes", seed)
    for name, section in described.used_tasks.items():
        task = described.data.open_task(name, section, seed)
        crops = validation_crops(task, spread(task.validation, SCORED))
        training = np.random.default_rng(derive_seed(seed, "pairs", name)).permutation(sorted(task.training))
        chosen_by = validation_crops(task, training[-8:].tolist())
        for start, number in product(("pooled", "episodes"), range(ADAPTATIONS)):
            folder = run / f"{start}-seed{seed}"
            network = load_network_folder(folder)[1]
            learnt = adapting_layers(network, None)
            for rate in ("learnt", *(RATES if start == "pooled" else ())):
                ours = copy.deepcopy(network)
                layers = adapting_layers(ours, None)
                rates = load_rates(run / f"episodes-seed{seed}", learnt)
                how = adaptation_of(layers, rates, "adam") if rate == "learnt" else plain(ours, float(rate))
                found = curve(ours, how, task, int(training[number]), number, (crops, chosen_by))
                for steps, (losses, others) in zip(STEPS, found, strict=True):
                    for pair, loss in zip(crops.names, losses, strict=True):
                        mean = f"{np.mean(others):.5f}"
                        yield [seed, name, start, rate, number, steps, mean, pair, f"{loss:.5f}"]


def report(rows: Sequence[Sequence[object]]) -> str:
    """Compare the starts after each number of steps."""
    table = [dict(zip(HEADING, map(str, row), strict=True)) for row in rows]
    tasks = list(dict.fromkeys(row["task"] for row in table))
    lines = [
        "# Starts for tasks that want different images of the same pairs, adapted on one pair",
        "",
        "Loss of `pooled` less that of `episodes`; above 0 `episodes` is better. `pooled` has the best of its rates.",
        "",
        f"| task | {' | '.join(f'{count} steps' for count in STEPS)} |",
        f"|---|{'---:|' * len(STEPS)}",
    ]
    means = [
        "",
        "Mean loss:",
        "",
        f"| task | start | {' | '.join(map(str, STEPS))} |",
        f"|---|---|{'---:|' * len(STEPS)}",
    ]
    for task in tasks:
        values = {start: [best(table, task, start, steps) for steps in STEPS] for start in ("pooled", "episodes")}
        shown = [interval(*both) for both in zip(*values.values(), strict=True)]
        lines.append(f"| {task} | {' | '.join(shown)} |")
        for start, losses in values.items():
            means.append(f"| {task} | {start} | {' | '.join(f'{each.mean():.4f}' for each in losses)} |")
    return "\n".join([*lines, *means, ""])


def best(table: Sequence[dict[str, str]], task: str, start: str, steps: int) -> np.ndarray:
    """Return the losses (seeds, adaptations, pairs) by the rate with the least loss on held-out training pairs."""
    chosen = [row for row in table if (row["task"], row["start"], row["steps"]) == (task, start, str(steps))]
    seeds = sorted({row["seed"] for row in chosen})
    found = []
    for seed in seeds:
        own = [row for row in chosen if row["seed"] == seed]
        rates = dict.fromkeys(row["rate"] for row in own)
        score = {rate: np.mean([float(row["chosen by"]) for row in own if row["rate"] == rate]) for rate in rates}
        rate = min(score, key=score.__getitem__)
        found.append([float(row["loss"]) for row in own if row["rate"] == rate])
    return np.array(found).reshape(len(seeds), ADAPTATIONS, -1)


def interval(pooled: np.ndarray, episodes: np.ndarray) -> str:
    """Write the mean difference with its interval."""
    paired = pooled - episodes
    rng = np.random.default_rng(0)
    drawn = [paired[np.ix_(*(rng.integers(size, size=size) for size in paired.shape))].mean() for _ in range(2000)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{paired.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def _folder_name(name: str) -> str:
    return f"wish-{name.replace(', ', '-')}"


def main() -> None:
    """Train, score and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if not (arguments.run / "pairs").is_dir():
        write_scenes(arguments.run / "pairs", 160, height=SIDE, width=160, seed=21)
    rows: list[list[object]] = []
    for seed in arguments.seeds:
        train(arguments.run, seed)
        rows += rows_of(arguments.run, seed)
    write_atomically(RESULTS / "conflicts.csv", csv_text(HEADING, rows))
    text = report(rows)
    write_atomically(RESULTS / "conflicts.md", text)
    print(text)


if __name__ == "__main__":
    main()
