"""A search that was stopped in any way and resumed is to the bit the search that was not."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from timfuse.genotypes import load_genotype
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_to_yaml
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.runtime.led_run import LedRun
from timfuse.runtime.weights import load_weights
from timfuse.search import search, search_recipe

VARIANTS = {
    "gauss_newton": {"search": {"estimator": "gauss_newton"}},
    "gumbel": {
        "search": {"estimator": "first_order", "mixture": "gumbel"},
        "cost": {"weight": 0.01},
        "space": {"norm": "group", "operators": ["dense_k3_d1", "dilated_k3_d1"]},
    },
}


def assert_same(first, second, where="state"):
    """Compare nested plain data and tensors to the bit, layout included."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert (first.dtype, first.shape, first.stride()) == (second.dtype, second.shape, second.stride()), where
        values = (tensor.detach().numpy().tobytes() for tensor in (first, second))
        assert next(values) == next(values), where  # NaN and the sign of 0 included
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_same(first[key], second[key], f"{where}[{key!r}]")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert first == second, where


def assert_same_runs(first, second):
    assert_same(load_checkpoint(first / "checkpoint.pt"), load_checkpoint(second / "checkpoint.pt"))
    assert_same(load_weights(first / "weights.safetensors"), load_weights(second / "weights.safetensors"))
    assert (first / "history.jsonl").read_bytes() == (second / "history.jsonl").read_bytes()
    assert load_genotype(first).cells == load_genotype(second).cells
    for key in ("metrics", "reason", "data", "warnings", "step", "parameters"):
        assert load_genotype(first).provenance[key] == load_genotype(second).provenance[key], key


def command(config, *options):
    path = config.run.with_suffix(".yaml")
    path.write_text(config_to_yaml(config), encoding="utf-8")
    return [sys.executable, "-m", "timfuse", "search", "--config", str(path), *options]


def logged(run):
    history = run / "history.jsonl"
    return history.read_bytes().count(b"\n") if history.is_file() else 0


def stop(config, at, number, *options):
    """Run a search in a process of its own and send it a signal once its history holds so many steps."""
    process = subprocess.Popen(
        command(config, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
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
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_at_random_steps(tiny, variant):
    steps = {"steps": 60, "warmup": 12, "checkpoint_every": 10, "validate_every": 7}
    content = {**VARIANTS[variant], "search": {**VARIANTS[variant]["search"], **steps}}
    whole, killed = (tiny(name, **content) for name in ("whole", "killed"))
    search(whole)
    chance = random.Random(variant)
    # Before the first checkpoint, in the warm-up, right after a checkpoint, and anywhere after.
    for options, at in (((), 4), (("--resume",), 11), (("--resume",), 30), (("--resume",), chance.randint(36, 52))):
        returncode, errors = stop(killed, at, signal.SIGKILL, *options)
        assert returncode == -signal.SIGKILL, errors
        assert logged(killed.run) < 60
        assert not (killed.run / "genotype.yaml").exists()
    search(killed, resume=True)
    assert_same_runs(whole.run, killed.run)


@pytest.mark.slow
def test_ctrl_c_saves_the_step_it_is_at(tiny):
    search_settings = {"steps": 60, "warmup": 12, "checkpoint_every": 1000}
    whole, stopped = (tiny(name, search=search_settings) for name in ("whole", "stopped"))
    search(whole)
    for at, options in ((5, ()), (25, ("--resume",))):
        returncode, errors = stop(stopped, at, signal.SIGINT, *options)
        assert returncode == 2, errors
        last = errors.strip().splitlines()[-1]
        step = load_checkpoint(stopped.run / "checkpoint.pt")["step"]
        assert last == f"error: stopped before step {step}; go on with --resume"
        assert at <= step == logged(stopped.run)
        assert "Traceback" not in errors
    search(stopped, resume=True)
    assert_same_runs(whole.run, stopped.run)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("moment", "calls_before_death"), [("log", (0, 1, 3, 4)), ("advance", (0, 2, 4)), ("save_checkpoint", (0, 1, 1, 0))]
)
def test_dying_anywhere_in_a_step(tiny, monkeypatch, variant, moment, calls_before_death):
    whole, killed = (tiny(name, **VARIANTS[variant]) for name in ("whole", "killed"))
    with monkeypatch.context() as patch:
        patch.setattr(search_recipe, "conclude", lambda *arguments: None)
        search(whole)
        call = getattr(LedRun, moment)
        for survived in calls_before_death:
            calls = []

            def die(*arguments, calls=calls, survived=survived):
                calls.append(arguments)
                if len(calls) > survived:
                    raise Killed
                return call(*arguments)

            with monkeypatch.context() as inner:
                inner.setattr(LedRun, moment, die)
                with pytest.raises(Killed):
                    search(killed, resume=True)
        search(killed, resume=True)
    assert_same(load_checkpoint(whole.run / "checkpoint.pt"), load_checkpoint(killed.run / "checkpoint.pt"))
    assert (whole.run / "history.jsonl").read_bytes() == (killed.run / "history.jsonl").read_bytes()


def test_dying_in_the_conclusion_and_resuming_a_finished_run(tiny, monkeypatch):
    whole, killed = tiny("whole"), tiny("killed")
    search(whole)

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["timfuse.search.search_conclusion"], "draw", die)
        with pytest.raises(Killed):
            search(killed)
    assert not (killed.run / "genotype.yaml").exists()
    search(killed, resume=True)
    assert_same_runs(whole.run, killed.run)
    search(killed, resume=True)
    assert_same_runs(whole.run, killed.run)


def test_a_run_may_go_on_with_other_workers_and_checkpoints_and_elsewhere(tiny, monkeypatch):
    whole, first = tiny("whole"), tiny("first")
    search(whole)
    steps = []

    def die_at_the_seventh(progress, status=""):
        steps.append(status)
        if len(steps) == 7:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LedRun, "advance", die_at_the_seventh)
        with pytest.raises(Killed):
            search(first)
    first.run.rename(first.run.with_name("moved"))
    moved = tiny("moved", data={"workers": 1, "cache_megabytes": 1}, search={"checkpoint_every": 5})
    search(moved, resume=True)
    assert_same_runs(whole.run, moved.run)


def test_another_config_or_architecture_is_refused(tiny):
    config = tiny(search={"steps": 3, "warmup": 1})
    search(config)
    checkpoint = (config.run / "checkpoint.pt").read_bytes()
    for changed, key in (
        (tiny(search={"steps": 4, "warmup": 1}), "search.steps was 3 and is now 4"),
        (tiny(search={"steps": 3, "warmup": 1}, seed=1), "seed was 0 and is now 1"),
        (tiny(search={"steps": 3, "warmup": 1}, space={"channels": 4}), "space.channels was 2 and is now 4"),
    ):
        with pytest.raises(UserError, match=key):
            search(changed, resume=True)
    other = tiny("other", search={"steps": 3, "warmup": 1}, space={"channels": 4})
    search(other)
    (other.run / "checkpoint.pt").write_bytes(checkpoint)
    with pytest.raises(UserError, match=r"is of another architecture or program; start anew with --overwrite"):
        search(other, resume=True)
    (other.run / "checkpoint.pt").write_bytes(checkpoint[:-100])
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged or not a checkpoint"):
        search(other, resume=True)
    search(other, overwrite=True)
    assert [row["step"] for row in read_history(other.run / "history.jsonl")] == [0, 1, 2]
