"""What fused images are good for: guided fusion against sources, trivial methods, both sources at once and no guidance.

For each strategy and seed a fusion network is trained with a task network; then fresh task networks learn on the images
of every method, all in the same way. Validation pairs choose weights, test pairs are scored, and intervals are over
test images. "alone" is the network trained for as many steps on the same pairs by the fusion loss alone. Trainings go
on where they stopped.

    python -m benchmarks.downstream detection DIR            # infrared-visible pairs with boxes and a test.txt
    python -m benchmarks.downstream marked                   # rendered scenes in which neither source suffices, boxes
    python -m benchmarks.downstream masks                    # the same scenes, class masks
    python -m benchmarks.downstream passes                   # cost of an outer step of learned_loss
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from timfuse.data import Objects, PairBatch, read_pixels, write_pixels, write_scenes
from timfuse.deploy import load
from timfuse.downstream import CompactDetector
from timfuse.finetune import FinetuneConfig, evaluate_task, finetune
from timfuse.finetune.strategies import Joint, LearnedLoss
from timfuse.finetune.task_evaluation import BASELINES
from timfuse.genotypes import load_genotype
from timfuse.objectives import FusionLoss
from timfuse.operators import build_network
from timfuse.runtime.config import load_config
from timfuse.runtime.run_files import CONFIG_FILE

RESULTS = Path(__file__).parent / "results"
STRATEGIES: dict[str, dict[str, object]] = {
    "lagrangian": {},
    "joint": {"weight": 1.0},
    "learned_loss": {"loss_learning_rate": 3e-3},
    "detfusion": {"detector_steps": 200, "content": 5.0},
}
STEPS = {"detection": 1000, "marked": 500, "masks": 500}
SCENES = {"train": 180, "val": 40, "test": 80}


def settings(kind: str, data: Path, folder: Path, strategy: str, seed: int) -> FinetuneConfig:
    """Put together the config of one training."""
    task = "segmentation" if kind == "masks" else "detection"
    downstream = {"kind": task, "colour": kind == "detection", "learning_rate": 3e-3}
    content = {
        "run": folder / f"{strategy}-seed{seed}",
        "seed": seed,
        "data": {"root": data, "crop": 160 if kind == "detection" else 128, "batch_size": 6, "scale": (0.75, 1.33)},
        "downstream": None if strategy == "fusion" else downstream,
        "guidance": {"strategy": strategy, **STRATEGIES.get(strategy, {})},
        "train": {"steps": STEPS[kind], "learning_rate": 2e-3, "validate_every": STEPS[kind] // 5},
        "loss": "quality",
    }
    return FinetuneConfig.model_validate(content)


def train(config: FinetuneConfig) -> Path:
    """Train, or go on where that was stopped, and return the run folder."""
    resume = (config.run / CONFIG_FILE).is_file()
    finetune(load_config(FinetuneConfig, config.run / CONFIG_FILE) if resume else config, resume=resume)
    return config.run


def fuse_all(network: Path, data: Path, folder: Path) -> Path:
    """Fuse every pair of a data set by a network."""
    fuser = load(network)
    for file in sorted((data / "ir").iterdir()):
        (other,) = (data / "vis").glob(f"{file.stem}.*")
        write_pixels(folder / f"{file.stem}.png", fuser(read_pixels(file), read_pixels(other)))
    return folder


def render(folder: Path) -> Path:
    """Render marked scenes and divide them into three lists."""
    if not (folder / "test.txt").is_file():
        write_scenes(folder, sum(SCENES.values()), kind="marked", height=192, width=256, seed=11)
        names = iter(sorted(file.stem for file in (folder / "ir").iterdir()))
        for part, count in SCENES.items():
            (folder / f"{part}.txt").write_text("".join(f"{next(names)}\n" for _ in range(count)))
    return folder


def run(
    kind: str, data: Path | None, folder: Path, *, strategies: list[str], baselines: list[str], seeds: list[int]
) -> None:
    """Train and score everything, and write the tables into benchmarks/results."""
    data = render(folder / "scenes") if data is None else data
    runs = [train(settings(kind, data, folder, strategy, seed)) for strategy in strategies for seed in seeds]
    alone = train(settings(kind, data, folder, "fusion", seeds[0]))
    done = evaluate_task(
        runs,
        None,
        folder / "table",
        fused={"alone": fuse_all(alone, data, folder / "alone")},
        baselines=baselines,
    )
    RESULTS.mkdir(exist_ok=True)
    for file in done.files:
        name = f"downstream-{kind}-{file.stem}{file.suffix}".replace("-table", "").replace("-scores", "")
        (RESULTS / name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        print(RESULTS / name)


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
    parser.add_argument("what", choices=("detection", "marked", "masks", "passes"))
    parser.add_argument("data", nargs="?", type=Path, help="labelled pairs, for detection")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=["lagrangian"])
    parser.add_argument("--baselines", nargs="+", choices=BASELINES, default=list(BASELINES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=None, help="of the trainings")
    arguments = parser.parse_args()
    if arguments.what == "passes":
        count_passes()
        return
    if (arguments.what == "detection") != (arguments.data is not None):
        parser.error("detection needs the folder of the pairs, and the other tasks render theirs")
    run(
        arguments.what,
        arguments.data,
        arguments.folder or Path("runs") / f"downstream-{arguments.what}",
        strategies=arguments.strategies,
        baselines=arguments.baselines,
        seeds=arguments.seeds,
    )


if __name__ == "__main__":
    sys.exit(main())
