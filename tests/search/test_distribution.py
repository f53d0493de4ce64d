"""A search by several processes is, to rounding, that of one; and they end together where something is wrong."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest
import torch

from timfuse.data import write_scenes
from timfuse.genotypes import load_genotype
from timfuse.runtime import loop
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_to_yaml
from timfuse.runtime.distribution import Ranks
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.search import search

from ..processes import PATIENCE, finish, logged, start

# Searches in double precision, whose networks nobody asks for.
PROGRAM = """
import math, os, sys
from pathlib import Path
import numpy as np
import torch
from timfuse.data import batch_stream, images, window
from timfuse.runtime.config import load_config
from timfuse.runtime.distribution import open_ranks
from timfuse.runtime.errors import UserError
from timfuse.runtime.loop import Loop
from timfuse.search import SearchConfig, search
from timfuse.objectives import FusionLoss
from timfuse.search import search_recipe

torch.set_default_dtype(torch.float64)
for module in (window, batch_stream):
    module.unit_range = lambda pixels: images.unit_range(pixels).astype(np.float64)
search_recipe.conclude = lambda *arguments: None
rank = int(os.environ["RANK"])


def poisoned(loss, *images):
    return fusion_loss(loss, *images) * (math.nan if rank == 1 else 1.0)


def fail(run, state):
    if run.ranks.leads and state.step == 3:
        raise UserError("cannot write checkpoint.pt: no space left")


def run_searches(paths):
    for path in paths:
        search(load_config(SearchConfig, Path(path)), resume=True)
"""
EQUAL = """
with open_ranks():
    run_searches(sys.argv[1:])
"""
STOPPED = """
try:
    run_searches(sys.argv[1:])
except UserError as error:
    print(error)
"""
FAILING = """
fusion_loss = FusionLoss.__call__
for name in ("poisoned", "full"):
    FusionLoss.__call__ = poisoned if name == "poisoned" else fusion_loss
    Loop.save = (lambda run, state: None) if name == "poisoned" else fail
    try:
        run_searches(sys.argv[1:])
    except (UserError, SystemExit) as error:
        print(f"{type(error).__name__}: {error}")
"""
VARIANTS = {
    "first_order": {},
    "gauss_newton": {},
    "finite_difference": {},
    "unrolled": {"estimator_options": {"steps": 2}},
    "neumann": {"estimator_options": {"terms": 2}},
    "conjugate_gradient": {"estimator_options": {"iterations": 2, "damping": 0.1}},
}
OPERATORS = ["residual_k3_d1", "separable_k3", "channel_attention_k3"]
FOUR = {"batch_size": 4}


def written(config):
    path = config.run.with_suffix(".yaml")
    path.write_text(config_to_yaml(config), encoding="utf-8")
    return str(path)


@pytest.fixture
def program(tmp_path):
    """A function that writes the program with one of its endings."""

    def write(ending):
        path = tmp_path / "program.py"
        path.write_text(PROGRAM + ending)
        return str(path)

    return write


def assert_close(first, second, tolerance=1e-10):
    """Compare what two searches have learnt and measured."""
    states = [load_checkpoint(run / "checkpoint.pt")["state"] for run in (first, second)]
    for name, tensor in states[0]["supernet"].items():
        torch.testing.assert_close(states[1]["supernet"][name], tensor, rtol=0, atol=tolerance, msg=name)
    torch.testing.assert_close(states[1]["logits"], states[0]["logits"], rtol=0, atol=tolerance)
    assert states[0]["logits"].abs().max() > 0.01
    histories = [read_history(run / "history.jsonl") for run in (first, second)]
    for key in ("inner_loss", "outer_loss", "weight_gradient_norm"):
        values = [[row[key] for row in rows if key in row] for rows in histories]
        assert values[0] == pytest.approx(values[1], rel=0, abs=10 * tolerance), key
    assert histories[0][-1]["validation"]["mean"] == pytest.approx(
        histories[1][-1]["validation"]["mean"], rel=0, abs=tolerance
    )


@pytest.mark.slow
def test_two_processes_give_what_one_gives_whatever_the_estimator(tiny, program):
    def configs(name):
        made = [
            tiny(
                f"{estimator}-{name}",
                data=FOUR,
                space={"operators": OPERATORS},
                search={"steps": 20, "validate_every": 20, "estimator": estimator, **options},
            )
            for estimator, options in VARIANTS.items()
        ]
        # Groups of one channel take away all that a bias before them does: its gradient is noise, which Adam enlarges.
        group = {"operators": OPERATORS, "norm": "group", "channels": 6}
        gumbel = {"steps": 20, "validate_every": 20, "mixture": "gumbel"}
        return [*made, tiny(f"group-{name}", data=FOUR, space=group, search=gumbel)]

    alone, together = configs("alone"), configs("together")
    path = program(EQUAL)
    processes = [*start([path, *map(written, alone)], 1), *start([path, *map(written, together)], 2)]
    codes, _, lines = finish(processes)
    assert codes == [0, 0, 0], lines
    for first, second in zip(alone, together, strict=True):
        assert_close(first.run, second.run)


@pytest.mark.slow
def test_stopped_and_resumed_by_another_number_of_processes(tiny, program):
    settings = {"steps": 40, "warmup": 5, "checkpoint_every": 1000, "validate_every": 40}
    alone, together = (tiny(name, data=FOUR, search=settings) for name in ("alone", "together"))
    path = program(STOPPED)
    first, processes = start([path, written(alone)], 1), start([path, written(together)], 2)
    while processes[0].poll() is None and logged(together.run) < 8:
        time.sleep(0.005)
    for process in processes:
        process.send_signal(signal.SIGINT)
    codes, outputs, lines = finish(processes)
    step = load_checkpoint(together.run / "checkpoint.pt")["state"]["step"]
    assert (codes, outputs) == ([0, 2], [f"stopped before step {step}; go on with --resume\n", ""]), lines
    assert 8 <= step == logged(together.run) < 40
    codes, outputs, lines = finish([*first, *start([path, written(together)], 1)])
    assert (codes, outputs) == ([0, 0], ["", ""]), lines
    assert_close(alone.run, together.run)


@pytest.mark.slow
def test_one_command_of_torchrun_searches_and_reports_once(tiny):
    config = tiny(cost={"height": 16, "width": 16, "weight": 0.01}, search={"steps": 3, "warmup": 1})
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "timfuse", "search", "--config", written(config)]
    done = subprocess.run([*runner, *command], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("genotype  ") == done.stdout.count("cell 1 (successive)") == 1
    assert load_genotype(config.run).provenance["steps"] == 3
    assert [row["step"] for row in read_history(config.run / "history.jsonl")] == [0, 1, 2]


@pytest.mark.slow
def test_processes_that_see_other_data_end_with_one_line(tiny, tmp_path):
    folders = [tmp_path / name for name in ("here", "there")]
    for folder, count in zip(folders, (6, 5), strict=True):
        write_scenes(folder / "pairs", count, height=32, width=32, seed=1)
    config = tiny(data={"root": "pairs"})
    codes, outputs, lines = finish(start(["-m", "timfuse", "search", "--config", written(config)], 2, folders))
    assert (codes, outputs, lines[1]) == ([2, 2], ["", ""], [])
    assert lines[0] == [
        "error: rank 1 sees other data than rank 0: 5 pairs against 6; give every machine the same folder"
    ]
    assert not config.run.exists()


@pytest.mark.slow
def test_an_error_that_one_process_meets_ends_all(tiny, program):
    config = tiny(search={"checkpoint_every": 3})
    codes, outputs, _ = finish(start([program(FAILING), written(config)], 2))
    assert codes == [0, 0]
    nan, full = outputs[0].splitlines()
    assert nan.startswith("UserError: step 0: the inner loss is not finite: nan; the state before it is in ")
    assert full == "UserError: cannot write checkpoint.pt: no space left"
    assert outputs[1] == "SystemExit: 2\nSystemExit: 2\n"


def test_a_batch_that_cannot_be_split_evenly_is_one_line(tiny, monkeypatch):
    monkeypatch.setattr(loop, "open_ranks", lambda: contextlib.nullcontext(Ranks(0, 3)))
    with pytest.raises(UserError, match=r"^data\.batch_size = 4 cannot be split evenly among 3 ranks; take 3 or 6$"):
        search(tiny(data=FOUR))
