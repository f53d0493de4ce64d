"""How much sooner a study ends with two workers than with one: the same trials, one thread for each worker.

python -m benchmarks.tune_workers
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRIALS = 8
REPEATS = 3
SETTINGS = (
    "device=cpu",
    "data.synthetic_pairs=8",
    "search.data.crop=48",
    "search.space.operators=[residual_k3_d1, spatial_attention_k3]",
    "search.search.steps=60",
    "search.search.warmup=10",
    "search.cost.height=64",
    "search.cost.width=64",
    "train.data.crop=48",
    "train.train.steps=60",
    "train.train.warmup=10",
    "train.train.images=0",
    "vary.search.space.channels=[4, 6]",
    "vary.search.space.cells=[[successive], [successive, successive]]",
)


def run(workers: int, folder: Path) -> float:
    """Run a study with a number of workers; return seconds."""
    command = [sys.executable, "-m", "timfuse", "tune", "--config", "tune", "--trials", str(TRIALS)]
    for setting in (*SETTINGS, f"run={folder}"):
        command += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder.parent)}
    start = time.perf_counter()
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(workers)
    ]
    if any([process.wait() for process in processes]):
        raise SystemExit("a worker failed")
    return time.perf_counter() - start


if __name__ == "__main__":
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        run(1, Path(folder) / "first")  # measures the operators once for all
        for repeat in range(REPEATS):
            one, two = (run(workers, Path(folder) / f"{workers}-{repeat}") for workers in (1, 2))
            ratios.append(one / two)
            print(
                f"{TRIALS} trials: {one:.1f} s with one worker, {two:.1f} s with two, ratio {ratios[-1]:.2f}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f}")
