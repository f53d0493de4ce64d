"""A training that was stopped in any way and resumed is to the bit the training that was not."""

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
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_to_yaml
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.runtime.led_run import LedRun
from timfuse.training import train, train_recipe


@pytest.fixture(params=["fusion", "refine"])
def make(request, tiny, genotypes):
    """A function that makes configs of one of the two stages."""
    if request.param == "fusion":
        return tiny
    first_stage = request.getfixturevalue("first_stage")

    def refine(run, **content):
        return tiny(run, genotype=str(genotypes / "refine.yaml"), first_stage=str(first_stage), **content)

    return refine


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
    for name in ("weights.safetensors", "weights-last.safetensors", "pictures/examples.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    provenances = [load_genotype(run).provenance for run in (first, second)]
    assert provenances[0]["metrics"] == provenances[1]["metrics"]
    assert provenances[0]["best_step"] == provenances[1]["best_step"]


def logged(run):
    history = run / "history.jsonl"
    return history.read_bytes().count(b"\n") if history.is_file() else 0


def stop(config, at, number, *options):
    """Run a training in a process of its own and send it a signal once its history holds so many steps."""
    path = config.run.with_suffix(".yaml")
    path.write_text(config_to_yaml(config), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "timfuse", "train", "--config", str(path), *options],
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
def test_killed_at_random_steps(make):
    settings = {"steps": 60, "checkpoint_every": 10, "validate_every": 7}
    whole, killed = (make(name, train=settings) for name in ("whole", "killed"))
    train(whole)
    # Before the first checkpoint, right after a checkpoint, and anywhere after.
    for options, at in (((), 4), (("--resume",), 11), (("--resume",), random.Random(0).randint(22, 52))):
        returncode, errors = stop(killed, at, signal.SIGKILL, *options)
        assert returncode == -signal.SIGKILL, errors
        assert logged(killed.run) < 60
    train(killed, resume=True)
    assert_same_runs(whole.run, killed.run)


@pytest.mark.slow
def test_ctrl_c_saves_the_step_it_is_at(tiny):
    settings = {"steps": 60, "checkpoint_every": 1000}
    whole, stopped = (tiny(name, train=settings) for name in ("whole", "stopped"))
    train(whole)
    returncode, errors = stop(stopped, 5, signal.SIGINT)
    assert returncode == 2, errors
    step = load_checkpoint(stopped.run / "checkpoint.pt")["step"]
    assert errors.strip().splitlines()[-1] == f"error: stopped before step {step}; go on with --resume"
    assert 5 <= step == logged(stopped.run)
    train(stopped, resume=True)
    assert_same_runs(whole.run, stopped.run)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    ("moment", "calls_before_death"),
    [
        ("log", (0, 1, 3, 4)),
        ("advance", (0, 2, 4)),
        ("save_checkpoint", (0, 1, 1, 0)),
        ("save_weights", (0, 1)),
        ("keep_best", (0, 1)),
    ],
)
def test_dying_anywhere_in_a_step(make, monkeypatch, moment, calls_before_death):
    whole, killed = make("whole"), make("killed")
    with monkeypatch.context() as patch:
        patch.setattr(train_recipe, "conclude", lambda *arguments: None)
        train(whole)
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
                    train(killed, resume=True)
        train(killed, resume=True)
    assert_same_checkpoints(whole.run, killed.run)
    for name in ("weights.safetensors", "weights-last.safetensors"):
        assert (whole.run / name).read_bytes() == (killed.run / name).read_bytes()


def test_dying_in_the_conclusion_and_resuming_a_finished_run(make, monkeypatch):
    whole, killed = make("whole"), make("killed")
    train(whole)

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["timfuse.training.train_conclusion"], "draw_curves", die)
        with pytest.raises(Killed):
            train(killed)
    assert not (killed.run / "pictures" / "curves.svg").exists()
    train(killed, resume=True)
    assert_same_runs(whole.run, killed.run)
    train(killed, resume=True)
    assert_same_runs(whole.run, killed.run)


def test_a_run_goes_on_with_other_workers_elsewhere_and_with_its_own_first_stage(
    tiny, genotypes, first_stage, monkeypatch
):
    def refine(run, **content):
        return tiny(run, genotype=str(genotypes / "refine.yaml"), first_stage=str(first_stage), **content)

    whole, started = refine("whole"), refine("started")
    train(whole)
    steps = []

    def die_at_the_seventh(run, status):
        steps.append(status)
        if len(steps) == 7:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LedRun, "advance", die_at_the_seventh)
        with pytest.raises(Killed):
            train(started)
    started.run.rename(started.run.with_name("moved"))
    for file in (*first_stage.iterdir(), *(first_stage / "pictures").iterdir()):
        if file.is_file():
            file.unlink()
    moved = refine("moved", data={"workers": 1, "cache_megabytes": 1}, train={"checkpoint_every": 5})
    train(moved, resume=True)
    assert_same_runs(whole.run, moved.run)


def test_another_config_or_architecture_is_refused(tiny, genotypes):
    config = tiny(train={"steps": 4})
    train(config)
    with pytest.raises(UserError, match=r"train\.steps was 4 and is now 5"):
        train(tiny(train={"steps": 5}), resume=True)
    genotype = load_genotype(genotypes / "fusion.yaml")
    save_genotype(replace(genotype, channels=6), genotypes / "fusion.yaml")
    with pytest.raises(UserError, match="is of another architecture or program; start anew with --overwrite"):
        train(config, resume=True)
    train(config, overwrite=True)
    assert [row["step"] for row in read_history(config.run / "history.jsonl")] == [0, 1, 2, 3]
