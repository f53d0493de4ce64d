"""What has to be equal: supernet and derived network, interrupted and uninterrupted search.

Run: python -m benchmarks.exactness (from the root of the repository, with timfuse installed).
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import one_hot

from timfuse.genotypes import ALL_OPERATORS, CellGenotype, Genotype, load_genotype
from timfuse.operators import build_network, build_supernet, inherited_weights
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.history import read_history
from timfuse.runtime.run_files import CHECKPOINT_FILE, HISTORY_FILE

SETTINGS = ["search.steps=40", "search.warmup=10", "search.checkpoint_every=7", "search.validate_every=20"]
KILL_AFTER = 23  # steps


def one_hot_difference(kind: str, training: bool) -> float:
    """Return the largest difference between a one-hot supernet and the network built from its genotype."""
    torch.manual_seed(0)
    supernet = build_supernet(channels=8, cells=[kind, kind], steps=2, candidates=ALL_OPERATORS).train(training)
    choices = torch.randint(len(ALL_OPERATORS), (2, 2))
    cells = tuple(CellGenotype(kind, tuple(ALL_OPERATORS[i] for i in row)) for row in choices.tolist())
    network = build_network(Genotype("one-hot", "infrared-visible", "fusion", 8, cells)).train(training)
    network.load_state_dict(inherited_weights(supernet, choices.tolist(), network))
    first, second = torch.rand(2, 2, 1, 30, 41)
    probabilities = one_hot(choices, len(ALL_OPERATORS)).float()
    with torch.no_grad():
        return (supernet(first, second, probabilities) - network(first, second)).abs().max().item()


def search(run: Path, *options: str, kill_after: int | None = None) -> None:
    """Run a search as a process of its own; kill it once its history has so many steps."""
    settings = [word for setting in (f"run={run}", *SETTINGS) for word in ("--set", setting)]
    command = [sys.executable, "-m", "timfuse", "search", "--config", "search-demo", *settings, *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    history = run / HISTORY_FILE
    while kill_after is not None and process.poll() is None:
        if history.is_file() and len(read_history(history)) >= kill_after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    process.wait()


def same(a: Any, b: Any) -> bool:
    """Compare nested containers of tensors and plain values, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def main() -> None:
    table = Table(title="supernet with one-hot probabilities against the derived network: largest difference")
    for column in ("cells", "training", "evaluation"):
        table.add_column(column)
    for kind in ("successive", "multi_scale", "decomposition"):
        table.add_row(kind, *(f"{one_hot_difference(kind, training):.1e}" for training in (True, False)))
    Console().print(table)

    table = Table(title=f"search killed after step {KILL_AFTER} and resumed, against uninterrupted")
    table.add_column("what")
    table.add_column("equal to the bit")
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole" / "run", Path(folder) / "killed" / "run"
        search(whole)
        search(killed, kill_after=KILL_AFTER)
        search(killed, "--resume")
        states = [load_checkpoint(run / CHECKPOINT_FILE) for run in (whole, killed)]
        for key in states[0]:
            table.add_row(key, str(same(states[0][key], states[1][key])))
        histories = [json.dumps(read_history(run / HISTORY_FILE)) for run in (whole, killed)]
        table.add_row("history", str(histories[0] == histories[1]))
        cells = [load_genotype(str(run)).cells for run in (whole, killed)]
        table.add_row("genotype", str(cells[0] == cells[1]))
    Console().print(table)


if __name__ == "__main__":
    main()
