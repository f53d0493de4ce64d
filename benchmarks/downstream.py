"""What fused images are good for: detection and segmentation on the sources, on fused images and on task-guided ones.

Every method gets the same task network, from the same start, for the same number of steps; validation is at the end
alone, so that no method chooses its best moment on the pairs that it is scored on. Trainings go on where they stopped.

    python -m benchmarks.downstream detection DIR            # infrared-visible pairs with boxes
    python -m benchmarks.downstream segmentation             # synthetic scenes
    python -m benchmarks.downstream passes                   # cost of an outer step of learned_loss
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from timfuse.data import Objects, PairBatch
from timfuse.downstream import CompactDetector
from timfuse.finetune import FinetuneConfig, evaluate_task, finetune
from timfuse.finetune.strategies import Joint, LearnedLoss
from timfuse.finetune.task_evaluation import markdown
from timfuse.genotypes import load_genotype
from timfuse.objectives import FusionLoss
from timfuse.operators import build_network
from timfuse.runtime.config import load_config
from timfuse.runtime.run_files import CONFIG_FILE

RESULTS = Path(__file__).parent / "results"
METHODS = {
    "infrared": {"strategy": "frozen", "images": "first"},
    "visible": {"strategy": "frozen", "images": "second"},
    "average": {"strategy": "frozen", "images": "average"},
    "task-free": {"strategy": "frozen"},
    "joint": {"strategy": "joint", "weight": 100.0},
    "lagrangian": {"strategy": "lagrangian", "tolerance": 0.1},
    "learned_loss": {"strategy": "learned_loss", "loss_learning_rate": 3e-3},
    "detfusion": {"strategy": "detfusion", "detector_steps": 200, "weight": 1.0, "content": 5.0},
}
STEPS = {"detection": 600, "segmentation": 500}
START_STEPS = {"detection": 1500, "segmentation": 1600}
LOSS = dict.fromkeys(("intensity", "gradient", "ssim"), 0.0) | {
    "structure": 9.5,
    "edges": 6.5,
    "differences": 0.8,
    "information": 1.55,
    "range": 5.0,
}
# learned_loss needs a term whose weights of the sources can be learnt; detfusion has its own.
LOSSES = {
    "learned_loss": LOSS | {"intensity": 5.0},
    "detfusion": dict.fromkeys(LOSS, 0.0) | {"gradient": 5.0, "range": 5.0},
}


def train(kind: str, data: Path | None, methods: list[str], seeds: list[int], folder: Path) -> None:
    """Train every method with every seed, or go on where that was stopped."""
    for seed in seeds:
        for method in methods:
            config = settings(kind, data, method, seed, folder)
            finetune(config, resume=(config.run / CONFIG_FILE).is_file())


def train_start(kind: str, data: Path | None, folder: Path) -> None:
    """Train the task network that all start from, on another mixture of the sources in each crop.

    Not to the end: a network that knows the training pairs by heart does its task however they are fused, and has no
    advice to give.
    """
    config = settings(kind, data, "infrared", 0, folder)
    steps = START_STEPS[kind]
    config = config.model_copy(
        update={
            "run": folder / "start",
            "task": config.task.model_copy(update={"init": None}),
            "guidance": config.guidance.model_copy(update={"images": "blend"}),
            "train": config.train.model_copy(update={"steps": steps, "validate_every": steps}),
        }
    )
    finetune(config, resume=(config.run / CONFIG_FILE).is_file())


def settings(kind: str, data: Path | None, method: str, seed: int, folder: Path) -> FinetuneConfig:
    """Put together the config of one training."""
    shipped = load_config(FinetuneConfig, Path(f"finetune-{kind}"))
    changes: dict[str, dict[str, object]] = {
        "data": {"root": data},
        "train": {"steps": STEPS[kind], "validate_every": STEPS[kind], "learning_rate": 2e-3, "clip": 10.0},
        "task": {"learning_rate": 2e-3, "init": str(folder / "start")},
    }
    if kind == "detection":
        changes["data"] |= {"crop": 160}
    sections = {name: getattr(shipped, name).model_copy(update=update) for name, update in changes.items()}
    return shipped.model_copy(
        update={
            **sections,
            "run": folder / f"{method}-seed{seed}",
            "seed": seed,
            "guidance": type(shipped.guidance)(**METHODS[method]),
            "loss": type(shipped.loss)(**LOSSES.get(method, LOSS)),
        }
    )


def tabulate(kind: str, data: Path | None, methods: list[str], seeds: list[int], folder: Path) -> None:
    """Score all methods and write the table into benchmarks/results."""
    runs = [folder / f"{method}-seed{seed}" for method in methods for seed in seeds]
    scores = evaluate_task(runs, data, folder / "table", baselines=False)
    print(markdown(scores))
    RESULTS.mkdir(exist_ok=True)
    for file in ("scores.csv", "table.md"):
        target = RESULTS / f"downstream-{kind}{Path(file).suffix}"
        target.write_text((folder / "table" / file).read_text(encoding="utf-8"), encoding="utf-8")
        print(target)


def count_passes(repeats: int = 15) -> None:
    """Time a step of learned_loss in plain passes: one forward and backward of fusion network, task and fusion loss."""
    torch.manual_seed(0)
    images = torch.rand(2, 8, 1, 192, 192)
    boxes = torch.tensor([[20.0, 30.0, 60.0, 120.0], [90.0, 80.0, 150.0, 130.0]])
    batch = PairBatch(*images, objects=tuple(Objects(boxes, torch.tensor([0, 2])) for _ in range(8)))
    network = build_network(load_genotype("ivif-fast")).eval()
    task = CompactDetector(("person", "bicycle", "car"), 24)
    loss = FusionLoss()
    plain = Joint(network, task, loss, 1.0)
    print("| estimator | plain passes | lowest | highest |\n| :-- | --: | --: | --: |")
    for estimator in ("gauss_newton", "finite_difference", "unrolled", "neumann", "conjugate_gradient"):
        learned = LearnedLoss(network, task, loss, estimator, {})
        ratios = []
        for _ in range(repeats):
            seconds = []
            for strategy in (plain, learned):
                for parameter in (*network.parameters(), *task.parameters()):
                    parameter.grad = None
                start = time.perf_counter()
                strategy.backward(0, 1e-3, batch, batch)
                seconds.append(time.perf_counter() - start)
            ratios.append(seconds[1] / seconds[0])
        print(f"| {estimator} | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |", flush=True)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("detection", "segmentation", "passes"))
    parser.add_argument("data", nargs="?", type=Path, help="labelled pairs; synthetic scenes without it")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=None, help="of the trainings")
    parser.add_argument("--only", choices=("start", "train", "table"), default=None)
    arguments = parser.parse_args()
    if arguments.what == "passes":
        count_passes()
        return
    kind, data, seeds = arguments.what, arguments.data, arguments.seeds
    methods = arguments.methods or [name for name in METHODS if kind == "detection" or name != "detfusion"]
    folder = arguments.folder or Path("runs") / f"downstream-{kind}"
    if arguments.only in (None, "start"):
        train_start(kind, data, folder)
    if arguments.only in (None, "train"):
        train(kind, data, methods, seeds, folder)
    if arguments.only in (None, "table"):
        tabulate(kind, data, methods, seeds, folder)


if __name__ == "__main__":
    sys.exit(main())
