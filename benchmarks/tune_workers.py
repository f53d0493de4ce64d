"""How much sooner a study ends with two workers than with one: the same trials, one thread for each worker.

Beside it, what the machine allows: two studies of half the trials that know nothing of each other.

    python -m benchmarks.tune_workers
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRIALS = 4
REPEATS = 3
SETTINGS = (
    "device=cpu",
    "data.synthetic_pairs=8",
    "search.data.crop=48",
    "search.space.operators=[residual_k3_d1, spatial_attention_k3]",
    "search.search.steps=150",
    "search.search.warmup=10",
    "search.cost.height=64",
    "search.cost.width=64",
    "train.data.crop=48",
    "train.train.steps=150",
    "train.train.warmup=10",
    "train.train.images=0",
    "vary.search.space.channels=[4, 6]",
    "vary.search.space.cells=[[successive], [successive, successive]]",
)


def run(folders: list[Path], trials: int) -> float:
    """Run a worker for each folder, those of the same folder on the same study; return seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folders[0].parent)}
    processes = []
    start = time.perf_counter()
    for folder in folders:
        command = [sys.executable, "-m", "timfuse", "tune", "--config", "tune", "--trials", str(trials)]
        for setting in (*SETTINGS, f"run={folder}"):
            command += ["--set", setting]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
    if any([process.wait() for process in processes]):
        raise SystemExit("a worker failed")
    return time.perf_counter() - start


if __name__ == "__main__":
    ratios, limits = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([folder / "first"], 1)  # measures the operators once for all
        for repeat in range(REPEATS):
            one = run([folder / f"one-{repeat}"], TRIALS)
            two = run([folder / f"two-{repeat}"] * 2, TRIALS)
            apart = run([folder / f"{side}-{repeat}" for side in ("left", "right")], TRIALS // 2)
            ratios.append(one / two)
            limits.append(one / apart)
            print(
                f"{TRIALS} trials: {one:.1f} s with one worker, {two:.1f} s with two, {apart:.1f} s apart;"
                f" ratio {ratios[-1]:.2f}, of studies apart {limits[-1]:.2f}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f}, of studies apart {statistics.median(limits):.2f}")
