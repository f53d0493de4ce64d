"""What a budget costs in quality: a search under it against the same budget met by shrinking the channels uniformly.

With each seed: a search without a budget; another under a share of what that network costs; and the first network with
as many channels as the same budget allows. Both are trained from fresh weights alike and scored on whole validation
images. Searches and trainings go on where they stopped.

    python -m benchmarks.budget DIR                     # infrared-visible pairs; four fifths of the operations
    python -m benchmarks.budget DIR --share 0.7 --kind ms
"""

import argparse
import csv
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from timfuse.cost import DeploymentTarget
from timfuse.genotypes import Genotype, load_genotype, save_genotype
from timfuse.objectives.metrics import BASKET
from timfuse.operators import build_network
from timfuse.runtime.config import load_config
from timfuse.runtime.run_files import CONFIG_FILE, GENOTYPE_FILE
from timfuse.search import SearchConfig, search
from timfuse.training import TrainConfig, train

RESULTS = Path(__file__).parent / "results"
METRICS = ("loss", *BASKET)
TARGET = DeploymentTarget(480, 640, torch.device("cpu"))
CELL_STEPS = 4  # so that operators, which a search chooses, make a good part of the network's cost


def cost(kind: str, genotype: Genotype) -> float:
    """Count or measure what a network costs: FLOPs or milliseconds for a pair of 640x480, or parameters."""
    return TARGET.cost(kind, build_network(genotype))


def search_once(data: Path, run: Path, seed: int, steps: int, budget: str | None) -> Genotype:
    """Search, or go on with it, or take what it found."""
    if (run / GENOTYPE_FILE).is_file():
        return load_genotype(run)
    settings = [f"data.root={data}", f"run={run}", f"seed={seed}", "device=cpu", f"search.steps={steps}"]
    settings += [f"search.warmup={steps // 8}", f"space.steps={CELL_STEPS}"]
    settings += [] if budget is None else [f"cost.budget={budget}"]
    config = load_config(SearchConfig, Path("search-ivif-fast"), settings)
    return search(config, resume=(run / CONFIG_FILE).is_file()).genotype


def shrunk(kind: str, genotype: Genotype, limit: float) -> Genotype:
    """Take channels away until a network meets a limit."""
    for channels in range(genotype.channels - 2, 0, -2):
        smaller = replace(genotype, name="shrunk", channels=channels, provenance={})
        if cost(kind, smaller) <= limit:
            return smaller
    raise SystemExit(f"no number of channels meets {limit:g} {kind}")


def train_once(data: Path, run: Path, genotype: Genotype, seed: int, steps: int) -> dict[str, float]:
    """Train a network from fresh weights; return its scores on the validation pairs."""
    file = run.with_suffix(".yaml")
    save_genotype(genotype, file)
    settings = [f"data.root={data}", f"run={run}", f"seed={seed}", "device=cpu", f"genotype={file}"]
    settings += [f"train.steps={steps}", f"train.validate_every={steps}", "train.warmup=50", "train.ema=0.99"]
    settings += ["data.validation_pairs=100"]
    config = load_config(TrainConfig, Path("train-ivif"), settings)
    return train(config, resume=(run / CONFIG_FILE).is_file()).scores["best"]["mean"]


def compare(data: Path, kind: str, share: float, seeds: list[int], steps: tuple[int, int], folder: Path) -> None:
    """Search, shrink, train and write the table into benchmarks/results."""
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        free = search_once(data, folder / f"free-{seed}", seed, steps[0], None)
        limit = share * cost(kind, free)
        budgeted = search_once(data, folder / f"budget-{seed}", seed, steps[0], f"{limit:.6g}{kind}")
        networks = {"searched under the budget": budgeted, "channels shrunk": shrunk(kind, free, limit)}
        for method, genotype in networks.items():
            scores = train_once(data, folder / f"{method.replace(' ', '-')}-{seed}", genotype, seed, steps[1])
            figures = {"budget": limit, "cost": cost(kind, genotype), "channels": genotype.channels}
            operators = " | ".join(", ".join(cell.operators) for cell in genotype.cells)
            rows.append({"seed": seed, "method": method} | figures | scores | {"operators": operators})
            print(rows[-1], flush=True)
    name = f"budget-{kind}"
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lines = [f"| {share:.0%} of the {kind} | {' | '.join(METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        columns = [[row[metric] for row in rows if row["method"] == method] for metric in METRICS]
        lines.append(f"| {method} | {' | '.join(_spread(column) for column in columns)} |")
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def _spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--kind", choices=("FLOPs", "params", "ms"), default="FLOPs")
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs=2, default=(300, 600), help="of the search and of the training")
    parser.add_argument("--folder", type=Path, default=Path("runs/budget"))
    arguments = parser.parse_args()
    compare(
        arguments.data,
        arguments.kind,
        arguments.share,
        arguments.seeds,
        tuple(arguments.steps),
        arguments.folder / arguments.kind,
    )
