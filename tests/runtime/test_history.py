import errno
import io
import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from timfuse.runtime import history as history_module
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import History, read_history


def logged(folder, resume_step, steps, **options):
    with History(folder, resume_step, tensorboard=False, **options) as history:
        for step in steps:
            history.log(step, {"loss": step / 3})
    return [row["step"] for row in read_history(folder / "history.jsonl")]


def test_lines_are_json_with_the_step_first_and_null_for_what_json_cannot_say(tmp_path):
    with History(tmp_path, None, tensorboard=False) as history:
        history.log(1, {"loss": float("nan"), "probability": {"a": float("inf"), "b": 0.1}, "phase": "warm-up"})
    text = (tmp_path / "history.jsonl").read_text()
    assert text.startswith('{"step": 1, ')
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert row == {"step": 1, "loss": None, "probability": {"a": None, "b": 0.1}, "phase": "warm-up"}


def test_floats_come_back_bit_for_bit(tmp_path):
    values = [0.1 + 0.2, 1e-308, 1 / 3, 2.0**60]
    with History(tmp_path, None, tensorboard=False) as history:
        history.log(0, {str(index): value for index, value in enumerate(values)})
    assert [*read_history(tmp_path / "history.jsonl")[0].values()][1:] == values


@given(done=st.integers(0, 6), resume_step=st.integers(0, 6), cut=st.integers(0, 40))
def test_resuming_gives_each_step_once_whatever_was_written_last(tmp_path_factory, done, resume_step, cut):
    folder = tmp_path_factory.mktemp("run")
    checkpoint = min(done, resume_step)
    logged(folder, None, range(1, done + 1))
    path = folder / "history.jsonl"
    # A killed process leaves lines after its checkpoint, the last of them possibly half written.
    content = path.read_text()
    later = sum(len(line) for line in content.splitlines(keepends=True)[checkpoint:])
    path.write_text(content[: len(content) - min(cut, later)])
    assert logged(folder, checkpoint, range(checkpoint + 1, 8)) == [*range(1, 8)]


def test_without_resuming_the_history_is_empty(tmp_path):
    logged(tmp_path, None, [1, 2])
    assert logged(tmp_path, None, [1]) == [1]


def test_half_a_last_line_is_not_read(tmp_path):
    logged(tmp_path, None, [1, 2])
    path = tmp_path / "history.jsonl"
    for end in ('{"step": 3, "lo', '{"step": 3}', "\x00\x00\x00"):
        path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2)) + end)
        assert [row["step"] for row in read_history(path)] == [1, 2]


@pytest.mark.parametrize(
    "line", ["{", "[" * 99_999, '{"step": ' + "9" * 9999 + "}", "null", '{"step": true}', "\x00", ""]
)
def test_a_damaged_line_takes_no_other_with_it(tmp_path, line):
    logged(tmp_path, None, [1, 2, 3])
    path = tmp_path / "history.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], line, *rows[1:], ""]))
    assert [row["step"] for row in read_history(path)] == [1, 2, 3]
    with History(tmp_path, 3, tensorboard=False) as history:
        assert history.note == f"{path} had 1 damaged lines, which are left out"
    assert path.read_text().splitlines() == rows


def test_a_missing_history(tmp_path):
    with pytest.raises(UserError, match="no history"):
        read_history(tmp_path / "history.jsonl")


def test_a_killed_process_loses_no_line_it_logged(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from timfuse.runtime.history import History\n"
        "history = History(Path(sys.argv[1]), None, tensorboard=False)\n"
        "for step in (1, 2, 3): history.log(step, {'x': 1.0})\n"
        "print('logged', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "logged\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [row["step"] for row in read_history(tmp_path / "history.jsonl")] == [1, 2, 3]


def test_a_full_disk(tmp_path):
    with History(tmp_path, None, tensorboard=False) as history:
        history._file.close()
        if not os.path.exists("/dev/full"):
            pytest.skip("this system has no /dev/full")
        history._file = open("/dev/full", "w")  # noqa: SIM115
        with pytest.raises(UserError, match=r"history\.jsonl: the disk is full"):
            history.log(1, {"x": 1.0})
        # What could not be written is still in the buffer and would fail again when closed.
        history._file = open(os.devnull, "w")  # noqa: SIM115


def test_without_tensorboard_there_is_a_note_and_a_history(tmp_path, monkeypatch):
    monkeypatch.setattr(history_module, "find_spec", lambda name: None)
    with History(tmp_path, None) as history:
        history.log(1, {"loss": 1.0})
    assert "timfuse[tensorboard]" in history.note
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.jsonl"]


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with History(tmp_path, None) as history:
        for step in range(1, 6):
            history.log(step, {"loss": 1.0, "probability": {"a": 0.25}, "phase": "search"})
    assert history.note == ""
    with History(tmp_path, 3) as history:
        for step in range(4, 8):
            history.log(step, {"loss": 2.0})
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (step, 1.0 if step <= 3 else 2.0) for step in range(1, 8)
    ]
    assert [event.value for event in events.Scalars("probability/a")] == [0.25] * 3
    assert sorted(events.Tags()["scalars"]) == ["loss", "probability/a"]


def test_tensorboard_shows_images(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with History(tmp_path, None) as history:
        history.log_image(5, "examples/one", picture)
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Images("examples/one")
    assert (event.step, event.height, event.width) == (5, 3, 4)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("L")), picture)
    with History(tmp_path / "other", None, tensorboard=False) as history:
        history.log_image(5, "examples/one", picture)


def test_tensorboard_shows_colour(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    picture = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    with History(tmp_path, None) as history:
        history.log_image(5, "examples/one", picture)
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    (event,) = events.Images("examples/one")
    assert (event.step, event.height, event.width) == (5, 2, 4)
    with Image.open(io.BytesIO(event.encoded_image_string)) as shown:
        assert shown.mode == "RGB"
        assert np.array_equal(np.asarray(shown), picture)


def test_opening_tensorboard_prints_nothing_and_loads_no_tensorflow(tmp_path):
    pytest.importorskip("tensorboard")
    program = (
        "import sys; from pathlib import Path; from timfuse.runtime.history import History\n"
        "with History(Path(sys.argv[1]), None) as history: history.log(1, {'x': 1.0})\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_full_disk_is_one_line_for_lines_and_events(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with History(tmp_path, None, tensorboard=False) as history:
        history._file = full.open("a", encoding="utf-8")
        with pytest.raises(UserError, match=r"history\.jsonl"):
            history.log(0, {"loss": 1.0})


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_events_that_cannot_be_written_are_a_user_error(tmp_path, monkeypatch):
    with History(tmp_path, None) as history:

        def refuse(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(history._events, "add_scalar", refuse)
        with pytest.raises(UserError, match=r"history\.jsonl"):
            history.log(0, {"loss": 1.0})


@pytest.mark.parametrize(
    "line",
    ['{"step": 1, "loss": 1%s}' % ("0" * 400), '{"step": 1%s}' % ("0" * 400), '{"step": 1, "a": %s' % ("[" * 9999)],
)
def test_numbers_that_cannot_be_drawn_are_damage(tmp_path, line):
    path = tmp_path / "history.jsonl"
    path.write_text(f'{{"step": 0, "loss": 0.5}}\n{line}\n{{"step": 2, "loss": 0.25}}\n')
    assert [row["step"] for row in read_history(path)] == [0, 2]
