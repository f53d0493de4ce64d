"""A finetuning that was stopped in any way and resumed is to the bit the one that was not."""

import contextlib
import signal

import pytest
import torch
from torch.utils import _pytree

from timfuse.finetune import finetune, finetune_conclusion, finetune_recipe
from timfuse.genotypes import load_genotype
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.runtime.led_run import LedRun

FILES = ("weights.safetensors", "task/weights.safetensors", "task/specification.yaml", "pictures/examples.png")
DETECTORS = ("detectors/weights.safetensors", "detectors/specification.yaml")


class Killed(BaseException):
    """Stands for the end of the process."""


def settings(strategy):
    """Where everything that a strategy keeps has a value of its own from the first step on."""
    # A tolerance below what the steps do moves the multiplier both ways.
    guidance = {"strategy": strategy, "tolerance": 0.0, "multiplier_rate": 20.0, "loss_learning_rate": 0.1}
    return {"guidance": {**guidance, "detector_steps": 3}, "train": {"steps": 6, "checkpoint_every": 2}}


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
    for name in (*FILES, *(DETECTORS if (first / "detectors").is_dir() else ())):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    provenances = [load_genotype(run).provenance for run in (first, second)]
    for key in ("metrics", "best_step", "fusion_loss_before", "promise_kept"):
        assert provenances[0].get(key) == provenances[1].get(key)


@contextlib.contextmanager
def stopping(monkeypatch, owner, name, at, how):
    """Let so many calls happen and then stop everything."""
    call, calls = getattr(owner, name), []

    def stop(*arguments, **options):
        result = call(*arguments, **options)
        calls.append(result)
        if len(calls) == at:
            how()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        yield


def kill():
    raise Killed


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible():
    """Hear Ctrl-C, which a process in the background of a shell does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def one_validation(monkeypatch):
    """Scores that are as good as validated ones where it is the training that matters."""
    validation = finetune_recipe.Validation({"loss": 1.0, "AP50": 0.5}, {})
    monkeypatch.setattr(finetune_recipe, "validate", lambda *arguments, **options: validation)
    monkeypatch.setattr(finetune_recipe, "conclude", lambda *arguments: None)


@pytest.mark.parametrize(
    ("strategy", "stops"),
    [
        ("frozen", (3,)),
        ("joint", (3,)),
        ("lagrangian", (3,)),
        ("learned_loss", (3,)),
        ("detfusion", (1, 4)),  # inside the preparation, which has three steps, and after it
    ],
)
def test_ctrl_c_saves_the_step_it_is_at(tiny, monkeypatch, interruptible, strategy, stops):
    whole, stopped = tiny("whole", **settings(strategy)), tiny("stopped", **settings(strategy))
    finetune(whole)
    done = 0
    for count in stops:
        with stopping(monkeypatch, finetune_recipe, "_step", count, ctrl_c), pytest.raises(UserError) as caught:
            finetune(stopped, resume=done > 0)
        done += count
        assert str(caught.value) == f"stopped before step {done}; go on with --resume"
        assert load_checkpoint(stopped.run / "checkpoint.pt")["step"] == done
    finetune(stopped, resume=True)
    assert_same_runs(whole.run, stopped.run)


def test_what_a_checkpoint_must_hold_is_really_at_work(tiny, one_validation):
    """The tests above would find nothing if prices and weights of sources stood still."""
    finetune(tiny("lagrangian", **settings("lagrangian")))
    rows = read_history(tiny("lagrangian").run / "history.jsonl")
    assert len({row["multiplier"] for row in rows[1:]}) == 5  # the first step sees the network of the start
    finetune(tiny("learned_loss", **settings("learned_loss")))
    rows = read_history(tiny("learned_loss").run / "history.jsonl")
    assert len({row["coefficient"] for row in rows}) == 6
    own = load_checkpoint(tiny("learned_loss").run / "checkpoint.pt")["own"]
    assert all(own[f"outer.{name}"].abs().sum() > 0 for name in ("weight", "bias"))


@pytest.mark.parametrize(
    ("strategy", "owner", "name", "stops"),
    [
        ("lagrangian", finetune_recipe, "_step", (1, 4, 2)),
        ("lagrangian", LedRun, "save_checkpoint", (1, 1, 1)),
        ("lagrangian", finetune_conclusion, "save_weights", (1,)),
        ("learned_loss", LedRun, "log", (1, 4, 2)),
        ("detfusion", LedRun, "log", (1, 4, 2)),
        ("detfusion", LedRun, "advance", (3, 4)),
        ("detfusion", LedRun, "save_checkpoint", (1, 1, 1)),
        ("detfusion", finetune_recipe, "keep_best", (1,)),
    ],
)
def test_dying_anywhere_in_a_step(tiny, monkeypatch, one_validation, strategy, owner, name, stops):
    whole, killed = tiny("whole", **settings(strategy)), tiny("killed", **settings(strategy))
    finetune(whole)
    for count in stops:
        with stopping(monkeypatch, owner, name, count, kill), pytest.raises(Killed):
            finetune(killed, resume=True)
    finetune(killed, resume=True)
    assert_same_checkpoints(whole.run, killed.run)
    for file in FILES[:2] + (DETECTORS[:1] if strategy == "detfusion" else ()):
        assert (whole.run / file).read_bytes() == (killed.run / file).read_bytes()


def test_dying_in_the_conclusion_and_resuming_a_finished_run(tiny, monkeypatch):
    whole, killed = tiny("whole", **settings("lagrangian")), tiny("killed", **settings("lagrangian"))
    finetune(whole)
    with stopping(monkeypatch, finetune_conclusion, "draw_examples", 1, kill), pytest.raises(Killed):
        finetune(killed)
    done = finetune(killed, resume=True)
    assert_same_runs(whole.run, killed.run)
    assert finetune(killed, resume=True) == done
    assert_same_runs(whole.run, killed.run)


def test_a_run_goes_on_elsewhere_with_other_workers(tiny, monkeypatch, one_validation):
    whole, started = tiny("whole", **settings("lagrangian")), tiny("started", **settings("lagrangian"))
    finetune(whole)
    with stopping(monkeypatch, LedRun, "advance", 3, kill), pytest.raises(Killed):
        finetune(started)
    started.run.rename(started.run.with_name("moved"))
    changed = settings("lagrangian") | {"data": {"workers": 1, "cache_megabytes": 1}}
    changed["train"]["checkpoint_every"] = 5
    moved = tiny("moved", **changed)
    finetune(moved, resume=True)
    assert_same_checkpoints(whole.run, moved.run)


def test_another_config_or_architecture_is_refused(tiny, one_validation):
    finetune(tiny(train={"steps": 4}))
    with pytest.raises(UserError, match=r"train\.steps was 4 and is now 5"):
        finetune(tiny(train={"steps": 5}), resume=True)
    with pytest.raises(UserError, match=r"guidance\.strategy was joint and is now lagrangian"):
        finetune(tiny(train={"steps": 4}, guidance={"strategy": "lagrangian"}), resume=True)
    config = tiny(train={"steps": 4})
    text = (config.run / "config.yaml").read_text()
    assert "width: 8" in text
    (config.run / "config.yaml").write_text(text.replace("width: 8", "width: 16"))
    with pytest.raises(UserError, match="is of another architecture or program; start anew with --overwrite"):
        finetune(tiny(train={"steps": 4}, task={"width": 16}), resume=True)
    finetune(config, overwrite=True)
    assert [row["step"] for row in read_history(config.run / "history.jsonl")] == [0, 1, 2, 3]
