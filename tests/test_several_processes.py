"""Runs of several processes are, to rounding, those of one; they stop together, and one that fails ends all.

How processes meet, compare configs and data, and write is tested in runtime/.
"""

import signal
import subprocess
import sys
import time

import pytest
import torch

from timfuse.genotypes import load_genotype
from timfuse.meta_init import meta_initialise
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.history import read_history
from timfuse.training import train

from .equality import assert_same
from .processes import PATIENCE, finish, start
from .tiny_runs import (
    NOTHING,
    TASKS,
    tiny_finetuning,
    tiny_meta_initialisation,
    tiny_search,
    tiny_training,
    write_config,
    write_networks,
)

pytestmark = pytest.mark.slow

# Runs in double precision which end before the conclusion, at a step that the command line gives.
PROGRAM = """
import math, os, signal, sys
from pathlib import Path
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from timfuse.data import PairBatch
from timfuse.finetune import FinetuneConfig, finetune
from timfuse.runtime.config import load_config
from timfuse.runtime.errors import StoppedError, UserError
from timfuse.search import SearchConfig, search
from timfuse.training import TrainConfig, train

rank, factor, made = int(os.environ["RANK"]), 1.0, 0
STAGES = {"train": (train, TrainConfig), "finetune": (finetune, FinetuneConfig)}


def stop(steps):
    def count(optimizer, *arguments):
        global made
        made += isinstance(optimizer, torch.optim.AdamW)
        if made == steps:
            signal.raise_signal(signal.SIGINT)

    return count


def run(path, steps, resume=False):
    global made
    made = 0
    stage, _, name = Path(path).stem.partition("-")
    if stage == "search":
        def end(step, losses):
            if step == steps - 1:
                raise StoppedError("stopped")

        search(load_config(SearchConfig, Path(path)), resume=resume, on_validation=end)
    else:
        handle = register_optimizer_step_post_hook(stop(steps))
        try:
            function, kind = STAGES[stage]
            function(load_config(kind, Path(path)), resume=resume)
        finally:
            handle.remove()


def run_all(paths, steps, resume=False):
    for path in paths:
        # A port of its own, since the processes may leave the last meeting at different times.
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
        try:
            run(path, steps[Path(path).stem.partition("-")[0]], resume)
        except (UserError, SystemExit) as error:
            print(f"{type(error).__name__}: {error}")


def to(batch, device):
    return batch._replace(first=factor * batch.first.to(dtype), second=batch.second.to(dtype))
"""
DOUBLE = """
dtype = torch.float64
torch.set_default_dtype(dtype)
PairBatch.to = to
run_all(sys.argv[3:], {"search": int(sys.argv[1]), "train": int(sys.argv[2])}, resume=True)
"""
# The parts of a batch differ, and so would the task networks of the processes if they were not kept alike.
ALIKE = """
def tell(module, inputs):
    if module.training and isinstance(module, torch.nn.BatchNorm2d):
        print("statistics", hash(tuple(module.running_mean.tolist())))


def show(optimizer, *arguments):
    print("weights", hash(tuple(float(p.sum()) for group in optimizer.param_groups for p in group["params"])))


torch.nn.modules.module.register_module_forward_pre_hook(tell)
register_optimizer_step_post_hook(show)
run_all(sys.argv[1:], {"finetune": 100})
"""
POISONED = """
dtype, factor = torch.float32, math.nan if rank == 1 else 1.0
PairBatch.to = to
run_all(sys.argv[1:], {"search": 100, "train": 100, "finetune": 100})
"""
ESTIMATORS = {
    "first_order": {},
    "gauss_newton": {},
    "finite_difference": {},
    "unrolled": {"estimator_options": {"steps": 2}},
    "neumann": {"estimator_options": {"terms": 2}},
    "conjugate_gradient": {"estimator_options": {"iterations": 2, "damping": 0.1}},
}
OPERATORS = ["residual_k3_d1", "separable_k3", "channel_attention_k3"]
FOUR = {"batch_size": 4}
SEARCH, TRAIN = (5, 10), (2, 4)  # steps at which runs of several processes are stopped, and all steps


@pytest.fixture
def program(tmp_path):
    """A function that writes the program with one of its endings."""

    def write(ending):
        path = tmp_path / "program.py"
        path.write_text(PROGRAM + ending)
        return str(path)

    return write


@pytest.fixture
def networks(tmp_path):
    return write_networks(tmp_path)


def assert_close(first, second, tolerance, where="state"):
    """Compare what runs have learnt, but for random generators and what the first process alone knows."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        # What batch normalisation takes away again has a gradient of noise, which Adam enlarges.
        taken_away = where.endswith(("bias", "running_mean"))
        atol = 100 * tolerance if taken_away else tolerance
        torch.testing.assert_close(second, first, rtol=0, atol=atol, msg=f"{where} differs")
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first.keys() - {"best", "best_loss", "best_step"}:
            assert_close(first[key], second[key], tolerance, f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_close(*pair, tolerance, f"{where}.{index}")
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=0, abs=tolerance, nan_ok=True), where
    else:
        assert first == second, where


def test_two_processes_give_what_one_gives_who_then_goes_on(program, networks, tmp_path):
    first = tiny_training(tmp_path / "first", networks, train={"steps": 2, "warmup": 1})
    train(first)

    def configs(name):
        folder = tmp_path / name
        folder.mkdir()
        # Few steps: in flat areas the loss has kinks, at which a training enlarges even its own rounding errors.
        yield tiny_training(folder / "train", networks, train={"steps": 4})
        refine = {"genotype": str(networks / "refine.yaml"), "first_stage": str(first.run)}
        yield tiny_training(folder / "train-refine", networks, **refine, train={"steps": 4})
        settings = {"steps": SEARCH[1], "validate_every": 5}
        for estimator, options in ESTIMATORS.items():
            yield tiny_search(
                folder / f"search-{estimator}",
                data=FOUR,
                space={"operators": OPERATORS},
                search={**settings, "estimator": estimator, **options},
            )
        # Groups of one channel take away all that a bias before them does: its gradient is noise, which Adam enlarges.
        group = {"operators": OPERATORS, "norm": "group", "channels": 6}
        yield tiny_search(folder / "search-group", data=FOUR, space=group, search={**settings, "mixture": "gumbel"})

    alone, together = list(configs("alone")), list(configs("together"))
    path, files = program(DOUBLE), [[write_config(config) for config in each] for each in (alone, together)]
    whole, part = ([path, f"{SEARCH[place]}", f"{TRAIN[place]}"] for place in (1, 0))
    codes, outputs, lines = finish([*start([*whole, *files[0]], 1), *start([*part, *files[1]], 2)])
    assert codes == [0, 0, 0], lines
    stopped = ["StoppedError: stopped before step {}; go on with --resume"] * 2 + ["StoppedError: stopped"] * 7
    assert outputs[0].splitlines() == [line.format(TRAIN[1]) for line in stopped]
    assert outputs[1].splitlines() == [line.format(TRAIN[0]) for line in stopped]
    assert outputs[2] == "SystemExit: 2\n" * len(together)
    rest = [path, f"{SEARCH[1]}", f"{TRAIN[1] - TRAIN[0]}"]
    codes, outputs, lines = finish(start([*rest, *files[1]], 1))
    assert codes == [0], lines
    for first, second in zip(alone, together, strict=True):
        states = [load_checkpoint(config.run / "checkpoint.pt")["state"] for config in (first, second)]
        assert states[0]["step"] == (SEARCH if "search" in first.run.name else TRAIN)[1]
        assert_close(*states, 1e-10, first.run.name)
        assert_close(*(read_history(config.run / "history.jsonl") for config in (first, second)), 1e-8, first.run.name)
        if "logits" in states[0]:
            assert states[0]["logits"].abs().max() > 0.01


def test_task_networks_of_several_processes_stay_alike(program, networks, tmp_path):
    configs = [
        tiny_finetuning(tmp_path / f"finetune-{strategy}", networks, guidance={"strategy": strategy})
        for strategy in ("lagrangian", "detfusion")
    ]
    codes, outputs, lines = finish(start([program(ALIKE), *map(write_config, configs)], 2))
    assert codes == [0, 0], lines
    assert outputs[0] == outputs[1]
    assert outputs[0].count("weights") == 4 + 2 + 4  # detfusion prepares in two steps
    assert len({line for line in outputs[0].splitlines() if line.startswith("statistics")}) > 20


def test_a_value_that_is_not_finite_in_one_process_ends_all(program, networks, tmp_path):
    configs = [
        tiny_training(tmp_path / "train", networks),
        tiny_search(tmp_path / "search"),
        *(
            tiny_finetuning(tmp_path / f"finetune-{strategy}", networks, guidance={"strategy": strategy})
            for strategy in ("lagrangian", "learned_loss")
        ),
    ]
    codes, outputs, lines = finish(start([program(POISONED), *map(write_config, configs)], 2))
    assert codes == [0, 0], lines
    for config, line in zip(configs, outputs[0].splitlines(), strict=True):
        assert line.startswith("DivergedError: step 0: ")
        assert " not finite: nan; the state before it is in " in line
        assert load_checkpoint(config.run / "checkpoint.pt")["state"]["step"] == 0
    assert outputs[1] == "SystemExit: 2\n" * len(configs)


META = {"pretrain": 2, "steps": 20, "rate_learning_rate": 0.1, "checkpoint_every": 1000}


def test_several_processes_initialise_to_the_bit_as_one_also_where_their_number_changes(networks, tmp_path):
    alone, together = (tiny_meta_initialisation(tmp_path / name, networks, meta=META) for name in ("alone", "together"))
    meta_initialise(alone)
    command = ["-m", "timfuse", "meta-init", "--config", write_config(together)]
    processes = start(command, 3)  # of which the last has no task
    history = together.run / "history.jsonl"
    while processes[0].poll() is None and not (history.is_file() and history.read_bytes().count(b"\n") >= 4):
        time.sleep(0.005)
    for process in processes:
        process.send_signal(signal.SIGINT)
    codes, outputs, lines = finish(processes)
    step = load_checkpoint(together.run / "checkpoint.pt")["state"]["step"]
    assert 4 <= step == len(read_history(history))
    assert (codes, outputs) == ([2] * 3, [""] * 3)
    assert lines == [[f"error: stopped before step {step}; go on with --resume"], [], []]
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*runner, *command, "--resume"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation loss after steps") == 1  # the first process alone reports
    assert_same(*(load_checkpoint(run / "checkpoint.pt") for run in (alone.run, together.run)))
    for name in ("weights.safetensors", "weights-last.safetensors", "rates.yaml", "history.jsonl"):
        assert (alone.run / name).read_bytes() == (together.run / name).read_bytes()
    assert load_genotype(together.run).provenance["best_step"] == load_genotype(alone.run).provenance["best_step"]


# Command lines, one after the other; each line of the output is what one of them says.
COMMANDS = """
import os, sys
from timfuse.cli import main

for words in sys.argv[1:]:
    # A port of its own, since the processes may leave the last meeting at different times.
    os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
    try:
        main(words.split())
    except SystemExit as error:
        print(words.split()[0], error.code)
"""


def test_a_mistake_is_one_line_of_the_first_process(networks, tmp_path):
    overflowing = {**TASKS["mri-ct"], "loss": {**NOTHING, "intensity": 1e39}}  # the second process has this task
    made = {
        "train": tiny_training(tmp_path / "train", networks, data={"batch_size": 3}),
        "search": tiny_search(tmp_path / "search", data={"batch_size": 3}),
        "finetune": tiny_finetuning(tmp_path / "finetune", networks, data={"crop": 32}),
        "meta-init": tiny_meta_initialisation(tmp_path / "meta-init", networks, tasks={**TASKS, "mri-ct": overflowing}),
    }
    words = [f"{command} --config {write_config(config)}" for command, config in made.items()]
    codes, outputs, lines = finish(start(["-c", COMMANDS, *words], 2))
    assert codes == [0, 0]
    assert outputs == ["".join(f"{command} 2\n" for command in made)] * 2
    assert lines[1] == []
    uneven = "error: data.batch_size = 3 cannot be split evenly among 2 ranks; take 2 or 4"
    assert lines[0][:2] == [uneven, uneven]
    assert lines[0][2].startswith("error: data.batch_size = 2 leaves each of 2 ranks one crop of 32 pixels, too little")
    assert lines[0][3].startswith("error: step 0: the loss of mri-ct or its gradient is not finite: nan; the state")
    assert len(lines[0]) == 4
