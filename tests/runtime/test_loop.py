"""The loop of every stage: rhythm, history, resuming, interruption, values that are not finite, several processes."""

import copy
import math
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from timfuse.runtime.checkpoint import load_checkpoint, save_checkpoint
from timfuse.runtime.config import Section
from timfuse.runtime.errors import StoppedError, UserError, check_finite
from timfuse.runtime.history import read_history
from timfuse.runtime.loop import capture, open_loop, restore

from ..equality import assert_same
from ..processes import finish, start

NANS = torch.full((4,), math.nan)


class Data(Section):
    crop: int = 8
    workers: int = 0
    cache_megabytes: int = 1


class Config(Section):
    run: Path
    device: str = "cpu"
    seed: int = 0
    data: Data = Data()
    often: int = 3


@dataclass
class State:
    """One field of every kind."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    total: Tensor
    nothing: nn.Module | None = None
    best: tuple[bool, float] = (False, -math.inf)
    name: str = "none"
    step: int = 0

    @classmethod
    def fresh(cls, seed=0, features=3):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        network = nn.Sequential(nn.Linear(features, 2), nn.BatchNorm1d(2))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        return cls(network, optimizer, torch.zeros(2, requires_grad=True))


@dataclass
class Trial:
    """A run of the loop, which calls two functions with the state in each step and validation.

    A number that they return stands for the loss. `before` is the state before the last step or validation.
    """

    config: Config
    steps: int = 8
    validate_every: int = 3
    checkpoint_every: int = 3
    on_step: Any = lambda state: None
    on_validate: Any = lambda state: None
    options: dict[str, Any] = field(default_factory=dict)
    before: Any = None

    def run(self, *, state=None, harmless=("often",), pairs=5, fingerprint=lambda: "five pairs", **opening):
        state = state or State.fresh()
        with open_loop(self.config, **opening) as loop:
            loop.open_folder(pairs=pairs, fingerprint=fingerprint, harmless=harmless)
            loop.start(state)
            loop.run(
                state,
                steps=self.steps,
                doing="counting",
                step=lambda: self.step(state),
                validate=lambda: self.validate(state),
                validate_every=self.validate_every,
                checkpoint_every=self.checkpoint_every,
                remedy="the rate",
                **self.options,
            )
        return state

    def step(self, state):
        """Draw from every generator, move statistics, and only then change the weights."""
        self.before = copy.deepcopy(capture(state))
        batch = torch.randn(4, 3) + random.gauss(0, 1) + np.random.randn()
        loss = state.network.train()(batch).square().mean()
        poison = self.on_step(state)
        check_finite({"loss": loss.item() if poison is None else poison})
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        with torch.no_grad():
            state.total += loss
        return {"loss": loss.item()}

    def validate(self, state):
        self.before = copy.deepcopy(capture(state))
        state.network.train()(torch.randn(4, 3))  # moves statistics, as no validation should
        poison = self.on_validate(state)
        score = state.total.sum().item() if poison is None else poison
        check_finite({"validation loss": score})
        if score > state.best[1]:
            state.best, state.name = (True, score), f"step {state.step}"
        return {"mean": {"loss": score, "VIF": 0.5}, "left": {"loss": score}}


@pytest.fixture
def trial(tmp_path):
    """A function that makes a trial in a folder of a test's own."""

    def make(run="run", config=None, **content):
        return Trial(Config(run=tmp_path / run, **(config or {})), **content)

    return make


@pytest.fixture(autouse=True)
def _hears_ctrl_c():
    """Processes in the background of a shell do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def saved(trial, *, data=False):
    """The checkpoint of a trial, by default without the fingerprint of its pairs."""
    content = load_checkpoint(trial.config.run / "checkpoint.pt")
    return content if data else {key: value for key, value in content.items() if key != "data"}


def history(trial):
    return read_history(trial.config.run / "history.jsonl")


@pytest.mark.parametrize(
    ("steps", "every", "after", "validated"),
    [
        (8, 3, 0, [2, 5, 7]),
        (6, 3, 0, [2, 5]),
        (2, 5, 0, [1]),
        (8, 3, 2, [1, 4, 7]),  # after two steps, and then every third
        (8, 3, 3, [2, 5, 7]),
        (8, 3, 20, [7]),  # the last step is validated whatever
    ],
)
def test_validations_come_at_their_rhythm_and_at_the_end(trial, steps, every, after, validated):
    run = trial(steps=steps, validate_every=every, options={"validate_after": after})
    run.run()
    rows = history(run)
    assert [row["step"] for row in rows] == list(range(steps))
    assert [row["step"] for row in rows if "validation" in row] == validated
    for row in rows:
        assert set(row) - {"validation"} == {"step", "loss"}
        assert list(row.get("validation", {})) in ([], ["mean", "left"])


@pytest.mark.parametrize(
    ("steps", "every", "expected"), [(8, 3, [0, 0, 0, 3, 3, 3, 6, 6, 8]), (4, 2, [0, 0, 2, 2, 4]), (3, 9, [0, 0, 0, 3])]
)
def test_checkpoints_come_at_their_rhythm_and_at_the_end(trial, steps, every, expected):
    found = []

    def look(state):
        path = run.config.run / "checkpoint.pt"
        found.append(load_checkpoint(path)["state"]["step"] if path.is_file() else 0)

    run = trial(steps=steps, checkpoint_every=every, on_step=look)
    look(run.run())
    assert found == expected


def test_progress_tells_the_status_and_the_last_validation(trial, capsys):
    run = trial(options={"status": lambda row: f"at {row['loss']:.1f}"})
    run.run()
    last = capsys.readouterr().err.splitlines()[-1]
    rows = history(run)
    assert last.startswith("counting run: 8/8, ")
    assert last.endswith(
        f"at {rows[-1]['loss']:.1f}, validated: loss {rows[-1]['validation']['mean']['loss']:.3f}, VIF 0.500"
    )


class Killed(BaseException):
    """Stands for the end of the process."""


def kill():
    raise Killed


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("moment", ["on_step", "on_validate"])
@pytest.mark.parametrize("how", [kill, interrupt])
def test_a_run_that_ended_anywhere_goes_on_to_the_bit(trial, moment, how):
    whole, stopped = trial("whole"), trial("stopped")
    whole.run()
    steps = range(whole.steps) if moment == "on_step" else (3, 6, 8)
    for step in steps:
        again = trial("stopped", **{moment: lambda state, step=step: how() if state.step == step else None})
        with pytest.raises((Killed, StoppedError)):
            again.run(resume=True)
    stopped.run(resume=True)
    assert_same(saved(whole), saved(stopped))
    assert history(whole) == history(stopped)
    stopped.run(resume=True)  # a finished run has nothing left to do
    assert_same(saved(whole), saved(stopped))
    assert history(whole) == history(stopped)


@pytest.mark.parametrize("step", [0, 4, 7])
def test_ctrl_c_saves_the_step_it_is_at(trial, step):
    run = trial(on_step=lambda state: interrupt() if state.step == step else None)
    with pytest.raises(StoppedError, match=f"^stopped before step {step + 1}; go on with --resume$"):
        run.run()
    assert saved(run)["state"]["step"] == step + 1
    assert len(history(run)) == step + 1


@pytest.mark.parametrize("step", [0, 4, 7])
def test_a_step_that_is_not_finite_keeps_the_state_before_it(trial, step):
    """Weights, statistics and random generators."""
    poisoned = trial(on_step=lambda state: math.nan if state.step == step else None)
    with pytest.raises(UserError) as caught:
        poisoned.run()
    assert str(caught.value) == (
        f"step {step}: the loss is not finite: nan; the state before it is in {poisoned.config.run / 'checkpoint.pt'};"
        " lower the rate and start anew with --overwrite"
    )
    assert_same(saved(poisoned), poisoned.before)
    assert poisoned.before["state"]["step"] == step == len(history(poisoned))
    whole = trial("whole")
    whole.run()
    trial().run(resume=True)
    assert_same(saved(poisoned), saved(whole))
    assert history(poisoned) == history(whole)


@pytest.mark.parametrize("step", [3, 8])
def test_a_validation_that_is_not_finite_keeps_the_state_before_it(trial, step):
    poisoned = trial(on_validate=lambda state: math.inf if state.step == step else None)
    with pytest.raises(UserError) as caught:
        poisoned.run()
    assert str(caught.value) == (
        f"step {step}: the validation loss is not finite: inf; the state before it is in"
        f" {poisoned.config.run / 'checkpoint.pt'}; lower the rate and start anew with --overwrite"
    )
    assert_same(saved(poisoned), poisoned.before)
    # The step that was to be validated is whole: it is in the checkpoint and in the history.
    assert poisoned.before["state"]["step"] == step == len(history(poisoned))
    assert "validation" not in history(poisoned)[-1]
    trial().run(resume=True)
    assert [row["step"] for row in history(poisoned)] == list(range(8))


def test_validations_are_reported_and_may_end_the_run(trial):
    seen = []
    run = trial(options={"on_validation": lambda step, scores: seen.append((step, scores))})
    run.run()
    assert seen == [(row["step"], row["validation"]) for row in history(run) if "validation" in row]
    ended = trial("ended", checkpoint_every=1, options={"on_validation": lambda *arguments: kill()})
    with pytest.raises(Killed):
        ended.run()
    assert saved(ended)["state"]["step"] == len(history(ended)) == 3
    assert "validation" in history(ended)[-1]


def test_every_kind_of_field_comes_back(tmp_path):
    state = State.fresh()
    trial = Trial(Config(run=Path("unused")))
    for state.step in range(3):
        trial.step(state)
    state.best, state.name, state.step = (True, 0.25), "third", 3
    taken = capture(state)
    assert set(taken) == {"state", "rng"}
    assert taken["state"]["total"].requires_grad is False
    save_checkpoint(tmp_path / "checkpoint.pt", taken)
    drawn = torch.rand(2), random.random(), np.random.rand()

    other = State.fresh(seed=5)
    parameter, leaf = next(other.network.parameters()), other.total
    restore(other, load_checkpoint(tmp_path / "checkpoint.pt"))
    assert (torch.rand(2).tolist(), random.random(), np.random.rand()) == (drawn[0].tolist(), *drawn[1:])
    assert_same(capture(other)["state"], taken["state"])
    assert (other.best, other.name, other.step, other.nothing) == ((True, 0.25), "third", 3, None)
    # In place, so that what holds the tensors of the state sees the change.
    assert next(other.network.parameters()) is parameter
    assert other.total is leaf
    assert leaf.requires_grad


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("total"),
        lambda state: state.update(total=torch.zeros(3)),
        lambda state: state.update(total=torch.zeros(1)),  # which could be spread over both elements
        lambda state: state["network"].pop("0.weight"),
        lambda state: state["network"].update({"0.weight": torch.zeros(2, 9)}),
        lambda state: state["network"].update({"0.weight": torch.full((2, 3), math.nan)}),
        lambda state: state["network"].update({"0.weight": torch.zeros(2, 3, dtype=torch.int32)}),
        lambda state: state.update(step=NANS),
        lambda state: state.update(step=3.0),
        lambda state: state.update(step=-1),
        lambda state: state.update(step=10**400),
        lambda state: state.update(nothing=NANS),
        lambda state: state.update(nothing="something"),
        lambda state: state.update(best=(NANS, 0.5)),
        lambda state: state.update(optimizer=NANS),
        lambda state: state["optimizer"].update(state=[]),
        lambda state: state["optimizer"]["state"].update({1: NANS}),
        lambda state: state["optimizer"]["state"][1].update(exp_avg=torch.full((2,), math.nan)),
        lambda state: state["optimizer"]["param_groups"][0].update(lr="fast"),
        lambda state: state["optimizer"]["state"][1].pop("exp_avg_sq"),
    ],
)
def test_a_checkpoint_of_another_state_is_one_line(trial, change):
    run = trial()
    run.run()
    content = saved(run, data=True)
    change(content["state"])
    save_checkpoint(run.config.run / "checkpoint.pt", content)
    with pytest.raises(UserError, match=r"run is of another architecture or program; start anew with --overwrite$"):
        run.run(resume=True)


@pytest.mark.parametrize("name", ["numpy", "torch", "python"])
@pytest.mark.parametrize("value", [torch.full((4,), math.nan), (), None, 3])
def test_damaged_generators_are_one_line(trial, name, value):
    run = trial()
    run.run()
    content = saved(run, data=True)
    content["rng"][name] = value
    save_checkpoint(run.config.run / "checkpoint.pt", content)
    with pytest.raises(UserError, match=r"run is of another architecture or program; start anew with --overwrite$"):
        run.run(resume=True)


def test_a_run_goes_on_with_the_pairs_that_it_began_with(trial):
    run = trial()
    run.run()
    with pytest.raises(UserError, match=r"cannot resume .*run: its pairs are not those that it began with"):
        run.run(resume=True, fingerprint=lambda: "five others")
    assert saved(run, data=True)["data"] == "five pairs"
    run.run(overwrite=True, fingerprint=lambda: "five others")
    assert saved(run, data=True)["data"] == "five others"


def test_what_changes_no_result_may_differ_on_resuming(trial):
    run = trial(steps=2)
    run.run()
    (run.config.run).rename(run.config.run.with_name("moved"))
    harmless = {"data": Data(workers=2, cache_megabytes=9), "often": 7}
    moved = trial("moved", config=harmless)
    moved.run(resume=True)
    assert len(history(moved)) == 8
    with pytest.raises(UserError, match="often was 7 and is now 3"):
        trial("moved", config=harmless | {"often": 3}).run(resume=True, harmless=())
    for key, value in (("seed", 1), ("device", "auto")):
        with pytest.raises(UserError, match=f"{key} was .* and is now {value}"):
            trial("moved", config={key: value}).run(resume=True)


def test_a_run_is_resumed_or_replaced_when_asked_for(trial, capsys):
    run = trial(on_step=lambda state: kill() if state.step == 1 else None)
    with pytest.raises(Killed):
        run.run()
    with pytest.raises(UserError, match="holds a run; go on with --resume, replace it with --overwrite"):
        trial().run()
    trial().run(resume=True)
    assert "has no checkpoint yet; the run starts from the beginning" in capsys.readouterr().err
    trial(steps=2).run(overwrite=True)
    assert len(history(run)) == 2


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(trial):
    run = trial(config={"device": "cuda:99"})
    with pytest.raises(UserError, match="cuda:99"):
        run.run()
    assert not run.config.run.exists()


# Each case in a run of its own; the processes differ in what the case says.
PROGRAM = """
import math, os, signal, sys
from dataclasses import dataclass
from pathlib import Path
import torch
from timfuse.runtime.config import Section
from timfuse.runtime.errors import UserError, check_finite
from timfuse.runtime.loop import open_loop

own = int(os.environ["RANK"])


class Data(Section):
    crop: int = 8
    workers: int = 0


class Config(Section):
    run: Path
    device: str = "cpu"
    data: Data = Data()


@dataclass
class State:
    network: torch.nn.Module
    step: int = 0


def count(name, steps, pairs=5, fingerprint="x", resume=False, broken=False, stopped=False, **data):
    torch.manual_seed(own)  # as if the processes had read other weights
    state = State(torch.nn.Linear(2, 2))
    config = Config(run=Path(sys.argv[1], name), data=Data(**data))

    def step():
        check_finite({"loss": math.nan if broken and state.step == 1 else 1.0})
        if stopped and own == 0:
            signal.raise_signal(signal.SIGINT)
        return {"loss": float(loop.ranks.collect(own)[-1])}

    with open_loop(config, resume=resume) as loop:
        loop.open_folder(pairs=pairs, fingerprint=lambda: fingerprint)
        loop.start(state)
        alike = len({str(weights) for weights in loop.ranks.collect(state.network.weight.tolist())}) == 1
        first = state.step
        loop.run(
            state,
            steps=steps,
            doing="counting",
            step=step,
            validate=lambda: {"mean": {"loss": 1.0}} if loop.ranks.leads else None,
            validate_every=2,
            checkpoint_every=9,
            remedy="it",
            on_validation=lambda step, scores: print("validated", step),
        )
    return loop.resumes, first, alike


for case, options in {
    "same": {"name": "run", "steps": 2, "workers": own},
    "again": {"name": "run", "steps": 4, "resume": True},
    "config": {"name": "config", "steps": 2, "crop": 8 + own},
    "pairs": {"name": "pairs", "steps": 2, "pairs": 5 + own, "fingerprint": f"{own}"},
    "files": {"name": "files", "steps": 2, "fingerprint": f"{own}"},
    "broken": {"name": "broken", "steps": 2, "broken": True},
    "stopped": {"name": "stopped", "steps": 2, "stopped": True},
}.items():
    try:
        print(case, *count(**options))
    except (UserError, SystemExit) as error:
        print(f"{case}: {error}")
"""


@pytest.mark.slow
def test_of_several_processes_the_first_writes_and_all_are_alike_or_end_together(tmp_path):
    program, folder = tmp_path / "program.py", tmp_path / "runs"
    program.write_text(PROGRAM)
    codes, outputs, lines = finish(start([str(program), str(folder)], 2))
    assert codes == [0, 0], lines
    broken = f"the loss is not finite: nan; the state before it is in {folder}/broken/checkpoint.pt; lower it and start"
    assert outputs[0].splitlines() == [
        "validated 1",
        "same False 0 True",
        "validated 3",
        "again True 2 True",
        "config: rank 1 has another config than rank 0: data.crop is 9 against 8;"
        " start all ranks with the same command",
        "pairs: rank 1 sees other data than rank 0: 6 pairs against 5; give every machine the same folder",
        "files: rank 1 sees other data than rank 0: 5 pairs, of which some have other names, images, labels or"
        " purposes; give every machine the same folder",
        f"broken: step 1: {broken} anew with --overwrite",
        "stopped: stopped before step 1; go on with --resume",
    ]
    assert outputs[1].splitlines() == [
        "same False 0 True",
        "again True 2 True",
        *(f"{case}: 2" for case in ("config", "pairs", "files", "broken", "stopped")),
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["broken", "run", "stopped"]
    rows = read_history(folder / "run" / "history.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(step, 1.0) for step in range(4)]
    steps = {name: load_checkpoint(folder / name / "checkpoint.pt")["state"]["step"] for name in ("run", "broken")}
    assert steps == {"run": 4, "broken": 1}
    assert load_checkpoint(folder / "stopped" / "checkpoint.pt")["state"]["step"] == 1
