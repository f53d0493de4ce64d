"""A meta-initialisation that was stopped in any way and resumed is to the bit the one that was not."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch.utils import _pytree

from timfuse.genotypes import load_genotype, save_genotype
from timfuse.meta_init import meta_init_recipe, meta_initialise
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_to_yaml
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.runtime.led_run import LedRun

from .conftest import TASKS

STEPS = 6  # of the tiny meta-initialisation, of which the first two are plain training
FILES = ("weights.safetensors", "weights-last.safetensors", "rates.yaml")


def assert_same_checkpoints(first, second):
    leaves, structure = _pytree.tree_flatten(load_checkpoint(first / "checkpoint.pt"))
    others, other_structure = _pytree.tree_flatten(load_checkpoint(second / "checkpoint.pt"))
    assert structure == other_structure
    for leaf, other in zip(leaves, others, strict=True):
        assert type(leaf) is type(other)
        if isinstance(leaf, torch.Tensor):
            assert (leaf.dtype, leaf.shape, leaf.stride()) == (other.dtype, other.shape, other.stride())
            assert leaf.numpy().tobytes() == other.numpy().tobytes()
        else:
            assert leaf == other
    assert (first / "history.jsonl").read_bytes() == (second / "history.jsonl").read_bytes()


def assert_same_runs(first, second):
    assert_same_checkpoints(first, second)
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    provenances = [load_genotype(run).provenance for run in (first, second)]
    assert provenances[0]["adaptation"] == provenances[1]["adaptation"]
    assert provenances[0]["best_step"] == provenances[1]["best_step"]


@pytest.fixture
def make(tiny):
    """A function that makes configs whose rates are learnt quickly."""

    def quick(run, **content):
        return tiny(run, **{"meta": {"rate_learning_rate": 0.1}, **content})

    return quick


@pytest.fixture
def whole(make):
    """The folder of a run that nothing stopped."""
    config = make("whole")
    meta_initialise(config)
    return config.run


@pytest.mark.parametrize("algorithm", ["fomaml", "maml"])
def test_ctrl_c_at_any_step(make, monkeypatch, algorithm):
    meta = {"algorithm": algorithm, "rate_learning_rate": 0.1}
    whole, stopped = (make(name, meta=meta) for name in ("whole", "stopped"))
    with monkeypatch.context() as patch:
        patch.setattr(meta_init_recipe, "conclude", lambda *arguments: None)
        meta_initialise(whole)
        with monkeypatch.context() as inner:
            inner.setattr(meta_init_recipe, "deferred_interrupt", lambda: contextlib.nullcontext(lambda: True))
            for step in range(1, STEPS + 1):
                with pytest.raises(UserError, match=f"^stopped before step {step}; go on with --resume$"):
                    meta_initialise(stopped, resume=True)
                assert load_checkpoint(stopped.run / "checkpoint.pt")["step"] == step
        meta_initialise(stopped, resume=True)
    # What was learnt is in it.
    assert len(set(load_checkpoint(whole.run / "checkpoint.pt")["log_rates"].tolist())) > 1
    assert_same_checkpoints(whole.run, stopped.run)
    for name in FILES:
        assert (whole.run / name).read_bytes() == (stopped.run / name).read_bytes()


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    ("moment", "calls_before_death"),
    [
        ("log", (0, 1, 3, 1)),
        ("save_checkpoint", (0, 1, 0)),
        ("save_weights", (0, 1)),
        ("keep_best", (0, 0)),
    ],
)
def test_dying_anywhere_in_a_step(make, monkeypatch, moment, calls_before_death):
    whole, killed = make("whole"), make("killed")
    with monkeypatch.context() as patch:
        patch.setattr(meta_init_recipe, "conclude", lambda *arguments: None)
        meta_initialise(whole)
        owner = LedRun if hasattr(LedRun, moment) else recipe
        call = getattr(owner, moment)
        for survived in calls_before_death:
            calls = []

            def die(*arguments, calls=calls, survived=survived):
                calls.append(arguments)
                if len(calls) > survived:
                    raise Killed
                return call(*arguments)

            with monkeypatch.context() as inner:
                inner.setattr(owner, moment, die)
                with pytest.raises(Killed):
                    meta_initialise(killed, resume=True)
        meta_initialise(killed, resume=True)
    assert_same_checkpoints(whole.run, killed.run)
    for name in FILES:
        assert (whole.run / name).read_bytes() == (killed.run / name).read_bytes()


def test_dying_in_the_conclusion_and_resuming_a_finished_run(make, whole, monkeypatch):
    killed = make("killed")

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("timfuse.meta_init.meta_init_conclusion.draw_adaptation", die)
        with pytest.raises(Killed):
            meta_initialise(killed)
    assert "adaptation" not in load_genotype(killed.run).provenance
    for _ in range(2):
        meta_initialise(killed, resume=True)
        assert_same_runs(whole, killed.run)


def test_a_run_goes_on_with_other_workers_and_elsewhere(make, whole, monkeypatch):
    started = make("started")
    step = meta_init_recipe._step

    def die_at_the_fifth(config, state, *rest):
        if state.step == 4:
            raise Killed
        return step(config, state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(meta_init_recipe, "_step", die_at_the_fifth)
        with pytest.raises(Killed):
            meta_initialise(started)
    started.run.rename(started.run.with_name("moved"))
    meta = {"rate_learning_rate": 0.1, "checkpoint_every": 5}
    moved = make("moved", data={"workers": 1, "cache_megabytes": 1}, meta=meta)
    meta_initialise(moved, resume=True)
    assert_same_runs(whole, moved.run)


def test_another_config_or_architecture_is_refused(tiny, genotype):
    short = {"pretrain": 0, "steps": 2}
    config = tiny(meta=short)
    meta_initialise(config)
    with pytest.raises(UserError, match=r"tasks\.mri-ct\.weight was 0\.5 and is now 2\.0"):
        meta_initialise(tiny(meta=short, tasks={**TASKS, "mri-ct": {**TASKS["mri-ct"], "weight": 2.0}}), resume=True)
    with pytest.raises(UserError, match=r"meta\.steps was 2 and is now 5"):
        meta_initialise(tiny(meta={**short, "steps": 5}), resume=True)
    save_genotype(replace(load_genotype(genotype), channels=6), genotype)
    with pytest.raises(UserError, match="is of another architecture or program; start anew with --overwrite"):
        meta_initialise(config, resume=True)
    meta_initialise(config, overwrite=True)
    assert [row["step"] for row in read_history(config.run / "history.jsonl")] == [0, 1]


def logged(run):
    history = run / "history.jsonl"
    return history.read_bytes().count(b"\n") if history.is_file() else 0


def stop(config, at, number, *options):
    """Run in a process of its own and send it a signal once its history holds so many steps."""
    path = config.run.with_suffix(".yaml")
    path.write_text(config_to_yaml(config), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "timfuse", "meta-init", "--config", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while process.poll() is None and logged(config.run) < at:
            time.sleep(0.002)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, errors


@pytest.mark.slow
def test_killed_at_random_steps_and_stopped_by_ctrl_c(make, like_a_process):
    meta = {"pretrain": 20, "steps": 40, "checkpoint_every": 10, "validate_every": 15}
    whole, killed, stopped = (make(name, meta=meta) for name in ("whole", "killed", "stopped"))
    meta_initialise(whole)
    # Before the first checkpoint, around the border between the parts, and anywhere after.
    for options, at in (((), 4), (("--resume",), 20), (("--resume",), random.Random(0).randint(32, 50))):
        returncode, errors = stop(killed, at, signal.SIGKILL, *options)
        assert returncode == -signal.SIGKILL, errors
        assert logged(killed.run) < 60
    meta_initialise(killed, resume=True)
    assert_same_runs(whole.run, killed.run)
    # In the plain part's last steps or the first episodes.
    returncode, errors = stop(stopped, 25, signal.SIGINT)
    assert returncode == 2, errors
    step = load_checkpoint(stopped.run / "checkpoint.pt")["step"]
    assert errors.strip().splitlines()[-1] == f"error: stopped before step {step}; go on with --resume"
    assert 25 <= step == logged(stopped.run)
    meta_initialise(stopped, resume=True)
    assert_same_runs(whole.run, stopped.run)
