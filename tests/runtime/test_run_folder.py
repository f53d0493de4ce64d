import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from timfuse.runtime.checkpoint import load_checkpoint, save_checkpoint
from timfuse.runtime.errors import UserError
from timfuse.runtime.files import write_atomically
from timfuse.runtime.run_folder import open_run

CONFIG = "seed: 0\nsearch:\n  steps: 10\ndata:\n  workers: 2\n"


def start(folder, config=CONFIG, *, resume=False, overwrite=False, **options):
    return open_run(folder, config_yaml=config, resume=resume, overwrite=overwrite, **options)


def refusal(*arguments, **options):
    with pytest.raises(UserError) as caught:
        start(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def finished(tmp_path):
    """A folder with all that a run writes."""
    folder = tmp_path / "runs" / "x"
    with start(folder) as run:
        save_checkpoint(run.checkpoint, {"step": 3})
        for name in (
            "genotype.yaml",
            "latency.yaml",
            "weights.safetensors",
            "weights-last.safetensors",
            "first_stage/genotype.yaml",
            "first_stage/weights.safetensors",
            "history.jsonl",
            "pictures/fused.png",
        ):
            write_atomically(folder / name, "old")
        (folder / "events.out.tfevents.1.a").write_text("old")
    return folder


@contextmanager
def other_process(folder):
    """Another process that has the run open."""
    program = (
        "import sys, time; from pathlib import Path; from timfuse.runtime.run_folder import open_run\n"
        f"run = open_run(Path(sys.argv[1]), config_yaml={CONFIG!r}, resume=True, overwrite=False)\n"
        "print('open', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_run(tmp_path, resume, overwrite):
    if resume and overwrite:
        assert "exclude each other" in refusal(tmp_path / "x", resume=True, overwrite=True)
        return
    with start(tmp_path / "x", resume=resume, overwrite=overwrite) as run:
        assert (run.checkpoint.parent / "config.yaml").read_text() == CONFIG
        assert not run.resumes
        assert ("from the beginning" in run.note) == resume


def test_an_existing_run_needs_a_flag(finished):
    line = refusal(finished)
    assert "--resume" in line
    assert "--overwrite" in line
    assert (finished / "genotype.yaml").exists()


def test_resuming_keeps_everything(finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file() and path.name != ".lock"}
    with start(finished, resume=True) as run:
        assert run.resumes
        assert run.note == ""
        assert load_checkpoint(run.checkpoint) == {"step": 3}
    assert {path.name: path.read_bytes() for path in finished.iterdir() if path.name in before} == before


def test_overwriting_deletes_what_the_run_wrote_and_nothing_else(finished):
    mine = ("my notes.txt", "pictures/mine.psd", "pictures/my-own-sketch.png", "task/weights.safetensors")
    for name in (*mine, "seed-backup/weights.safetensors"):
        (finished / name).parent.mkdir(exist_ok=True)
        (finished / name).write_text("mine")
    with start(finished, "seed: 1\n", overwrite=True) as run:
        assert not run.resumes
    left = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert left == {"config.yaml", ".lock", ".written", *mine, "seed-backup/weights.safetensors"}
    assert (finished / "config.yaml").read_text() == "seed: 1\n"


def test_the_runs_below_a_run_are_deleted_with_it(finished):
    inner = finished / "seed-3"
    with start(finished, resume=True), start(inner) as run:
        save_checkpoint(run.checkpoint, {"step": 3})
        (inner / "events.out.tfevents.1.a").write_text("old")
    start(finished, overwrite=True).close()
    assert {path.name for path in finished.iterdir()} == {"config.yaml", ".lock", ".written"}


@pytest.mark.parametrize(
    "name", ["pictures", "seed-0", ".lock", ".written", "config.yaml", "weights.safetensors", "task"]
)
@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_link_in_the_place_of_what_a_run_writes_is_refused(finished, tmp_path, name, flags):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "fused.png").write_text("mine")
    place = finished / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(elsewhere if "." not in name else elsewhere / "fused.png")
    assert f"{place} is a link" in refusal(finished, **flags)
    assert (elsewhere / "fused.png").read_text() == "mine"


def test_a_manifest_of_somebody_else_deletes_nothing_outside(finished, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    mine = [tmp_path / "mine.txt", tmp_path / "elsewhere" / "mine.txt"]
    for path in mine:
        path.write_text("mine")
    (finished / "way").symlink_to(tmp_path / "elsewhere")
    names = ["../../mine.txt", str(mine[0]), "way/mine.txt", "", ".", "a\0b"]
    with (finished / ".written").open("a") as file:
        file.write("".join(f"{json.dumps(name)}\n" for name in names) + 'null\n"half')
    start(finished, overwrite=True).close()
    assert all(path.read_text() == "mine" for path in mine)


def test_what_a_killed_process_left_half_written_is_deleted(finished):
    for name in (".0badcafe0badcafe.tmp", "pictures/.0123456789abcdef.tmp"):
        (finished / name).write_text("half")
    start(finished, resume=True).close()
    assert not list(finished.rglob("*.tmp"))


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path, flags):
    (tmp_path / "weights.safetensors").write_text("mine")
    (tmp_path / "thesis.tex").write_text("mine")
    assert "choose another folder" in refusal(tmp_path, **flags)
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors", "thesis.tex"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CONFIG.replace("10", "20"), "search.steps was 10 and is now 20"),
        (CONFIG.replace("seed: 0\n", ""), "seed was 0 and is now None"),
        (CONFIG + "more: 1\n", "more was None and is now 1"),
        (CONFIG.replace("0\nsearch", "0.0\nsearch"), None),
        (CONFIG.replace("workers: 2", "workers: 4"), None),
        ("data: {workers: 2}\nsearch: {steps: 10}\nseed: 0\n", None),
    ],
)
def test_resuming_needs_the_same_config(finished, config, words):
    if words:
        assert words in refusal(finished, config, resume=True, harmless=["data.workers"])
        assert (finished / "config.yaml").read_text() == CONFIG
    else:
        with start(finished, config, resume=True, harmless=["data.workers"]) as run:
            assert run.resumes
        assert (finished / "config.yaml").read_text() == config


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_the_beginning(finished):
    (finished / "checkpoint.pt").unlink()
    with start(finished, resume=True) as run:
        assert not run.resumes
        assert "no checkpoint yet" in run.note


def test_a_run_that_was_killed_before_its_config_was_written_leaves_a_usable_folder(tmp_path):
    (tmp_path / ".lock").write_text("1\n")
    (tmp_path / ".0badcafe0badcafe.tmp").write_text("half")
    with start(tmp_path) as run:
        assert not run.resumes
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".written", "config.yaml"}


def test_an_overwriting_that_was_killed_can_be_repeated(finished, monkeypatch):
    class Killed(BaseException):
        pass

    unlink, done = type(finished).unlink, []

    def unlink_some(path, **options):
        if len(done) == 5:
            raise Killed
        done.append(path)
        unlink(path, **options)

    monkeypatch.setattr(type(finished), "unlink", unlink_some)
    with pytest.raises(Killed):
        start(finished, overwrite=True)
    monkeypatch.undo()
    # Nothing can be resumed from what is half deleted, and it is still known to be a run.
    assert not (finished / "checkpoint.pt").exists()
    start(finished, overwrite=True).close()
    assert {path.name for path in finished.iterdir()} == {"config.yaml", ".lock", ".written"}


def test_two_processes_cannot_have_the_same_run(finished):
    with other_process(finished) as other:
        for flags in ({}, {"resume": True}, {"overwrite": True}):
            assert f"in use by process {other.pid}" in refusal(finished, **flags)
        assert (finished / "genotype.yaml").exists()


def test_the_lock_of_a_killed_process_is_void(finished):
    with other_process(finished) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with start(finished, resume=True) as run:
            assert run.resumes
            assert (finished / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_refused_start_frees_the_folder(finished):
    refusal(finished)
    with other_process(finished):
        pass


def test_a_process_that_outlives_the_run_does_not_hold_the_folder(finished):
    program = (
        "import os, sys, time; from pathlib import Path; from timfuse.runtime.run_folder import open_run\n"
        f"run = open_run(Path(sys.argv[1]), config_yaml={CONFIG!r}, resume=True, overwrite=False)\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(finished)], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        start(finished, resume=True).close()
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "x").write_text("")
    assert "is a file" in refusal(tmp_path / "x")


def test_a_folder_where_a_run_has_a_file(finished):
    (finished / "checkpoint.pt").unlink()
    (finished / "checkpoint.pt").mkdir()
    before = sorted(finished.rglob("*"))
    assert refusal(finished, resume=True).endswith(
        "checkpoint.pt is a folder, where a run has a file; move it elsewhere"
    )
    assert sorted(finished.rglob("*")) == before


def test_a_longer_run_is_told_how_to_go_on(tmp_path):
    config = "init: null\ntrain:\n  steps: {}\n  warmup: {}\ninner:\n  steps: 3\n"
    with start(tmp_path, config.format(10, 1)):
        pass
    line = refusal(tmp_path, config.format(20, 2), resume=True)
    assert "train.steps was 10 and is now 20; its learning rates follow a curve over 10 steps; " in line
    assert line.endswith(f"go on from its weights in another folder, with --set init={tmp_path}")
    line = refusal(tmp_path, config.format(10, 1).replace("steps: 3", "steps: 4"), resume=True)
    assert line.endswith(
        "inner.steps was 3 and is now 4; resume with the run's own config or start anew with --overwrite"
    )
