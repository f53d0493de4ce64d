"""The work on a study: whatever happens to a worker, the study ends with as many trials as it is to have."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from timfuse.genotypes import CellGenotype, Genotype, load_genotype
from timfuse.runtime.errors import StoppedError, UserError
from timfuse.search import SearchResult
from timfuse.training import Training
from timfuse.tuning import sampler, storage, study, trial, tune, worker
from timfuse.tuning.storage import connected, parse_url
from timfuse.tuning.trial import Outcome, cost_of, geometric_mean

GENOTYPE = Genotype("found", "infrared-visible", "fusion", 2, (CellGenotype("successive", ("residual_k3_d1",)),))


def trials_of(config, url=None):
    """All trials of a study, by state."""
    with connected(parse_url(url, config.run)) as opened:
        trials = study.load_study(config.study, opened).get_trials()
    return {state: [one for one in trials if one.state == state] for state in TrialState}


@pytest.fixture
def instant(monkeypatch):
    """Trials that take no time; the list of what they were called with, and a hook for what happens in them."""

    class Instant:
        def __init__(self):
            self.calls = []
            self.hook = lambda settings, number: None

        def __call__(self, config, settings, folder, number, on_validation=None):
            self.calls.append((number, settings))
            self.hook(settings, number)
            values = (settings["train.loss.gradient"], float(settings["search.space.channels"]))
            return Outcome(GENOTYPE, values[0], None if config.cost is None else values[1])

    instant = Instant()
    monkeypatch.setattr(worker, "run_trial", instant)
    monkeypatch.setattr(worker, "_POLL_SECONDS", 0.05)
    return instant


def test_a_trial_searches_trains_and_tells_what_came_of_it(tiny, capsys):
    config = tiny()
    tune(config, 2)
    done = trials_of(config)[TrialState.COMPLETE]
    for one in done:
        folder = Path("run/trials") / f"{one.number:04d}"
        genotype, found, trained = (load_genotype(folder / name) for name in ("", "search", "train"))
        settings = {key: json.loads(value) if isinstance(value, str) else value for key, value in one.params.items()}
        assert genotype.channels == found.channels == settings["search.space.channels"]
        assert genotype.stem == settings["search.space.stem"]
        scores = trained.provenance["metrics"]["best"]["mean"]
        quality = math.prod(scores[name] for name in ("VIF", "Qabf", "MEF-SSIM")) ** (1 / 3)
        assert one.values == [pytest.approx(quality), found.provenance["latency"]["milliseconds"]]
        told = genotype.provenance["tuning"]
        assert (told["trial"], told["settings"]) == (one.number, settings)
        assert (told["quality"]["value"], told["cost"]) == (one.values[0], {"milliseconds": one.values[1]})
        assert one.user_attrs[worker.GENOTYPE] == (folder / "genotype.yaml").read_text(encoding="utf-8")
        assert trained.provenance["genotype"] == str(folder / "search")
    assert done[0].params != done[1].params
    said = capsys.readouterr().err
    assert "study tune in sqlite:///run/study.db: 0 of 2 trials finished" in said
    assert "2 of 2 trials finished" in said


def test_a_study_has_as_many_trials_as_asked_for_in_all(tiny, instant, capsys):
    tune(tiny(), 3)
    tune(tiny(), 3)
    assert [number for number, _ in instant.calls] == [0, 1, 2]
    tune(tiny(), 4)
    assert [number for number, _ in instant.calls] == [0, 1, 2, 3]
    assert "3 of 4 trials finished" in capsys.readouterr().err


@pytest.mark.parametrize("cost", ["milliseconds", "null"])
def test_one_worker_tries_the_same_each_time_however_often_it_is_started(tiny, instant, monkeypatch, cost):
    # The others are drawn at random.
    monkeypatch.setattr(sampler, "TPESampler", partial(optuna.samplers.TPESampler, n_startup_trials=2))
    tune(tiny(f"cost={cost}"), 5)
    whole = instant.calls[:]
    instant.calls.clear()
    for trials in (3, 5):
        tune(tiny("run=again", f"cost={cost}"), trials)
    assert instant.calls == whole
    instant.calls.clear()
    tune(tiny("run=other", "seed=1", f"cost={cost}"), 1)
    assert instant.calls != whole[:1]


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_a_stopped_trial_goes_on_where_it_was(tiny, instant, error, capsys):
    def stop(settings, number):
        if len(instant.calls) == 2:
            raise error

    instant.hook = stop
    with pytest.raises(UserError, match="stopped; the same command goes on"):
        tune(tiny(), 3)
    tune(tiny(), 3)
    # Its second attempt has the number 2 in the storage.
    assert [number for number, _ in instant.calls] == [0, 1, 1, 3]
    assert instant.calls[1] == instant.calls[2]
    assert "failed" not in capsys.readouterr().err
    assert len(trials_of(tiny())[TrialState.COMPLETE]) == 3


def test_a_failed_trial_is_told_and_the_study_goes_on(tiny, instant, capsys):
    def fail(settings, number):
        if number == 1:
            raise UserError("step 7: the loss is not finite: nan")

    instant.hook = fail
    tune(tiny(), 3)
    assert [number for number, _ in instant.calls] == [0, 1, 2, 3]
    assert "trial 1 failed: step 7: the loss is not finite: nan\n" in capsys.readouterr().err
    assert len(trials_of(tiny())[TrialState.FAIL]) == 1


def test_three_failures_in_a_row_end_the_work(tiny, instant):
    def fail(settings, number):
        if number != 1:
            raise UserError("no such thing")

    instant.hook = fail
    with pytest.raises(UserError, match="3 trials in a row failed; mend what they say"):
        tune(tiny(), 9)
    assert [number for number, _ in instant.calls] == [0, 1, 2, 3, 4]


def test_a_defect_keeps_its_traceback_and_is_not_tried_again(tiny, instant):
    def fail(settings, number):
        if number == 0:
            raise ZeroDivisionError

    instant.hook = fail
    with pytest.raises(ZeroDivisionError):
        tune(tiny(), 2)
    tune(tiny(), 2)
    assert [number for number, _ in instant.calls] == [0, 1, 2]


def test_a_trial_without_numbers_fails(tiny, monkeypatch):
    scores = {"best": {"mean": {"VIF": math.nan, "Qabf": 0.5, "MEF-SSIM": 1.0}}}
    found = SearchResult(GENOTYPE, {0: GENOTYPE}, 0)
    monkeypatch.setattr(trial, "search", lambda config, **options: found)
    monkeypatch.setattr(trial, "train", lambda config, **options: Training(GENOTYPE, 0, scores))
    with pytest.raises(UserError, match="the quality is not a number: nan"):
        trial.run_trial(tiny("cost=null"), {}, Path("trial"), 0)


def test_a_dead_worker_is_waited_for_and_its_trial_taken_over(tiny, instant, monkeypatch, capsys):
    monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(storage, "GRACE_SECONDS", 1)

    class Killed(BaseException):
        """Stands for the end of the process."""

    def die(settings, number):
        if len(instant.calls) == 2:
            raise Killed

    instant.hook = die
    with pytest.raises(Killed):
        tune(tiny(), 2)
    assert len(trials_of(tiny())[TrialState.RUNNING]) == 1
    tune(tiny(), 2)
    assert instant.calls[1] == instant.calls[2]
    assert [number for number, _ in instant.calls] == [0, 1, 1]
    assert "waiting for 1 trial of other workers; those of a dead worker are taken over 1 s" in capsys.readouterr().err


def test_a_worker_that_died_before_its_first_heartbeat_is_not_waited_for_for_ever(tiny, instant):
    config = tiny()
    tune(config, 1)
    long_ago = datetime.now() - timedelta(seconds=2 * storage.GRACE_SECONDS)
    with connected(parse_url(None, config.run)) as opened:
        lost = optuna.create_trial(state=TrialState.RUNNING)
        lost.datetime_start = long_ago
        study.load_study(config.study, opened).add_trial(lost)
    tune(config, 2)
    assert [number for number, _ in instant.calls] == [0, 1]  # the lost trial, and no other one
    assert not trials_of(config)[TrialState.RUNNING]


def test_a_trial_that_has_begun_has_a_heartbeat_before_the_thread_of_heartbeats_runs(tiny, instant, monkeypatch):
    monkeypatch.setattr(optuna.storages._heartbeat.HeartbeatThread, "start", lambda self: None)
    monkeypatch.setattr(optuna.storages._heartbeat.HeartbeatThread, "join", lambda self: None)
    config = tiny()
    tune(config, 1)
    with connected(parse_url(None, config.run)) as opened, opened.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM trial_heartbeats").scalar() == 1


def test_what_a_killed_worker_left_half_written_is_deleted(tiny, instant):
    config = tiny()
    tune(config, 1)
    for name in ("front", "trials/0000/train"):
        (config.run / name).mkdir(parents=True, exist_ok=True)
        (config.run / name / ".0badcafe0badcafe.tmp").write_text("half")
    tune(config, 2)
    assert not list(config.run.rglob("*.tmp"))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_worker_that_was_taken_for_dead_leaves_its_trial_to_the_other(tiny, instant, times):
    config = tiny()

    def lose(settings, number):
        if len(instant.calls) <= times:
            with connected(parse_url(None, config.run)) as opened:
                study.load_study(config.study, opened).tell(len(instant.calls) - 1, state=TrialState.FAIL)

    instant.hook = lose
    tune(config, 2)
    assert [number for number, _ in instant.calls] == [0] * (times + 1) + [times + 1]
    assert instant.calls[: times + 1] == instant.calls[:1] * (times + 1)


def test_a_trial_that_was_handed_back_twice_is_run_once(tiny, instant):
    config = tiny()

    def stop(settings, number):
        raise StoppedError("stopped before step 3")

    instant.hook = stop
    with pytest.raises(UserError, match="stopped"):
        tune(config, 2)
    with connected(parse_url(None, config.run)) as opened:
        again = study.load_study(config.study, opened)
        (failed,) = again.get_trials(states=(TrialState.FAIL,))
        optuna.storages.RetryHeartbeatStaleTrialCallback()(again, failed)
    instant.hook = lambda settings, number: None
    instant.calls.clear()
    tune(config, 2)
    assert [number for number, _ in instant.calls] == [0, 3]


def test_workers_that_ask_at_once_do_not_overshoot(tiny, instant):
    config = tiny()
    tune(config, 2)
    has_turn = worker._Worker._has_turn
    turns = iter([True])  # as if another worker had not finished yet when this one looked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker._Worker, "_has_turn", lambda self: next(turns, None) or has_turn(self))
        tune(config, 2)
    assert len(trials_of(config)[TrialState.COMPLETE]) == 2
    tune(config, 3)
    assert [number for number, _ in instant.calls] == [0, 1, 2]


def test_a_folder_in_use_is_waited_for(tiny, instant, monkeypatch):
    folder = Path("run/trials/0000")
    folder.mkdir(parents=True)
    program = f"""
import fcntl, sys
with open("{folder}/.lock", "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "locked\n"
    said = []

    def say(self, message):
        said.append(message)
        if message.startswith(f"waiting: {folder} is in use by process"):
            other.stdin.close()

    monkeypatch.setattr(worker._Worker, "_say", say)
    tune(tiny(), 1)
    assert other.wait() == 0
    assert len([message for message in said if message.startswith("waiting")]) == 1
    assert [number for number, _ in instant.calls] == [0]


def test_a_study_of_quality_alone_ends_trials_early(tiny, monkeypatch, capsys):
    losses = iter([1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 2.0, 0.7])
    ran = []

    def run_trial(config, settings, folder, number, on_validation=None):
        on_validation(1, {"mean": {"inner_loss": 0.0, "outer_loss": next(losses)}})
        ran.append(number)
        return Outcome(GENOTYPE, 1.0, None)

    monkeypatch.setattr(worker, "run_trial", run_trial)
    config = tiny("cost=null")
    tune(config, 8)
    assert ran == [0, 1, 2, 3, 4, 5, 7]
    trials = trials_of(config)
    assert [one.number for one in trials[TrialState.PRUNED]] == [6]
    assert len(trials[TrialState.COMPLETE]) == 7
    assert "trial 6: ended early at step 1, behind the median of the others; 7 of 8" in capsys.readouterr().err


def test_searches_tell_of_their_validations(tiny):
    config = tiny("cost=null")
    tune(config, 1)
    (done,) = trials_of(config)[TrialState.COMPLETE]
    assert len(done.values) == 1
    rows = map(json.loads, Path("run/trials/0000/search/history.jsonl").read_text().splitlines())
    losses = {row["step"]: -row["validation"]["mean"]["outer_loss"] for row in rows if "validation" in row}
    assert done.intermediate_values == pytest.approx(losses)
    assert len(losses) == 2


def test_losses_that_differ_cannot_end_a_trial(tiny, instant, capsys):
    tune(tiny("cost=null", "vary.search.search.outer_loss.edges=[1, 2]"), 1)
    assert "no trial is ended early: trials differ in the loss or the crops" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["cost=GFLOPs"], "has cost = milliseconds, not GFLOPs; go on with that"),
        (["cost=null"], "has cost = milliseconds, not None; go on with that"),
        (["quality=[VIF]"], "has quality = ['VIF', 'Qabf', 'MEF-SSIM'], not ['VIF']"),
        (["vary.search.space.channels=[2, 6]"], "has vary.search.space.channels = [2, 4], not [2, 6]"),
        (["vary.train.loss.ssim=[1, 2]"], "has vary.train.loss.ssim = None, not [1, 2]"),
        (["train.train.steps=3"], "has train.train.steps = 2, not 3"),
        (["study=other"], "run holds trials of another study than other in sqlite:///run/study.db"),
    ],
)
def test_another_study_is_refused(tiny, instant, settings, line):
    tune(tiny(), 1)
    with pytest.raises(UserError) as error:
        tune(tiny(*settings), 2)
    assert line in str(error.value)
    assert "--set run=DIR" in str(error.value)
    assert len(instant.calls) == 1


@pytest.mark.parametrize("settings", [["cost=null"], ["train.train.steps=3"], ["vary.search.space.channels=[2, 6]"]])
def test_a_study_that_was_stopped_before_its_first_trial_takes_other_settings(tiny, instant, monkeypatch, settings):
    def stop(worker):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("timfuse.tuning.worker._Worker._has_turn", stop)
        with pytest.raises(UserError, match="stopped"):
            tune(tiny(), 1)
    tune(tiny(*settings), 1)
    assert len(instant.calls) == 1
    assert len(trials_of(tiny(*settings))[TrialState.COMPLETE]) == 1


def test_milliseconds_of_another_device_are_refused_and_operations_are_not(tiny, instant, monkeypatch):
    tune(tiny(), 1)
    tune(tiny("run=other", "cost=GFLOPs"), 1)
    monkeypatch.setattr(study, "device_name", lambda device: "a faster one")
    with pytest.raises(UserError, match=r"measures milliseconds on .*, and this is a faster one; use the same"):
        tune(tiny(), 2)
    tune(tiny("run=other", "cost=GFLOPs"), 2)


def test_a_study_of_something_else_is_refused(tiny):
    config = tiny()
    with connected(parse_url(None, config.run)) as opened:
        optuna.create_study(storage=opened, study_name="tune").add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(UserError, match="was not created by `timfuse tune`; name another with --set study=NAME"):
        tune(config, 1)


@pytest.mark.parametrize(
    ("content", "line"), [(b"[1]\n", "study.yaml holds no mapping"), (b"\xff", "study.yaml is no text in UTF-8")]
)
def test_a_damaged_file_of_a_study_is_one_line(tiny, instant, content, line):
    Path("run").mkdir()
    Path("run/study.yaml").write_bytes(content)
    with pytest.raises(UserError, match=line):
        tune(tiny(), 1)
    assert Path("run/study.yaml").read_bytes() == content
    assert not instant.calls


def test_data_that_no_trial_could_use_is_found_before_any_trial(tiny, instant):
    with pytest.raises(UserError, match="there does not exist"):
        tune(tiny("data.root=there"), 1)
    assert not instant.calls


def test_the_quality_is_free_of_scale_and_the_cost_is_what_the_search_says():
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([20.0, 8.0, 1.5]) / geometric_mean([2.0, 8.0, 1.5]) == pytest.approx(10 ** (1 / 3))
    assert geometric_mean([0.5, -0.1]) == 0.0
    assert math.isnan(geometric_mean([1.0, math.nan]))
    said = {"latency": {"milliseconds": 3.5}, "flops_640x480": 2_500_000_000, "parameters": 700}
    genotype = replace(GENOTYPE, provenance=said)
    assert [cost_of(genotype, name) for name in ("milliseconds", "GFLOPs", "parameters")] == [3.5, 2.5, 700.0]
