"""How long threads of torch should wait busily for each other: the time of fusing alone and beside a busy program.

    python -m benchmarks.spinning          # from the root, on an idle machine with two cores or more

Each setting of GOMP_SPINCOUNT is tried in a process of its own, all in turn, and the medians over the rounds count. The
busy program is one Python loop.
"""

import argparse
import os
import statistics
import subprocess
import sys

SETTINGS = ("default", "0", "300", "1000", "3000", "10000")
FUSE = """
import statistics, time, torch, timfuse
fuser = timfuse.load("{network}")
images = torch.rand(2, 1, 480, 640)
times = []
for _ in range({calls}):
    start = time.perf_counter()
    fuser(*images)
    times.append(time.perf_counter() - start)
print(1000 * statistics.median(times[3:]))
"""


def milliseconds(setting: str, network: str, calls: int) -> float:
    """Time a call in a process with a setting."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    }
    if setting != "default":
        environment["GOMP_SPINCOUNT"] = setting
    code = FUSE.format(network=network, calls=calls)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Time all settings and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--network", default="ivif")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=13)
    given = parser.parse_args()
    medians: dict[tuple[str, bool], float] = {}
    for busy in (False, True):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        try:
            times: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
            for _ in range(given.rounds):
                for setting, values in times.items():
                    values.append(milliseconds(setting, given.network, given.calls))
        finally:
            if other is not None:
                other.kill()
        medians |= {(setting, busy): statistics.median(values) for setting, values in times.items()}
    print("| GOMP_SPINCOUNT | alone | beside a busy program |\n|---|---|---|")
    for setting in SETTINGS:
        print(f"| {setting} | {medians[setting, False]:.0f} ms | {medians[setting, True]:.0f} ms |")


if __name__ == "__main__":
    main()
