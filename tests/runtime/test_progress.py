import io
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from timfuse.runtime import progress as progress_module
from timfuse.runtime.progress import Progress


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def piped_lines(clock, total, seconds_per_step, start=0):
    out = io.StringIO()
    with Progress(total, "searching", start, console=Console(file=out)) as progress:
        for step in range(start, total):
            clock.now += seconds_per_step
            progress.advance(f"loss {step}")
    return out.getvalue().splitlines()


def test_piped_lines_say_what_the_bar_says(clock):
    lines = piped_lines(clock, 4, 10.0)
    assert lines == [
        "searching: 1/4, 0.1 steps/s, 0:00:30 left, 0:00:10 elapsed, loss 0",
        "searching: 2/4, 0.1 steps/s, 0:00:20 left, 0:00:20 elapsed, loss 1",
        "searching: 3/4, 0.1 steps/s, 0:00:10 left, 0:00:30 elapsed, loss 2",
        "searching: 4/4, 0.1 steps/s, 0:00:00 left, 0:00:40 elapsed, loss 3",
    ]


@pytest.mark.parametrize(
    ("total", "seconds_per_step", "most"),
    [(10_000, 0.001, 4), (1000, 0.1, 22), (10_000, 0.1, 22), (10_000, 10, 1670)],
)
def test_piped_lines_are_few_and_never_far_apart(clock, total, seconds_per_step, most):
    begin = clock.now
    lines = piped_lines(clock, total, seconds_per_step)
    assert lines[0].startswith("searching: 1/")
    assert lines[-1].startswith(f"searching: {total}/{total}")
    assert len(lines) <= most
    longest = max(60.0, 5.0) + seconds_per_step
    assert len(lines) >= min((clock.now - begin) / longest, 2)


def test_the_rate_after_a_resume_counts_only_what_this_process_did(clock):
    lines = piped_lines(clock, 1000, 2.0, start=990)
    assert lines[0] == "searching: 991/1000, 0.5 steps/s, 0:00:18 left, 0:00:02 elapsed, loss 990"


def test_the_rate_follows_a_change_of_pace(clock):
    with Progress(1000, "searching", console=Console(file=io.StringIO())) as progress:
        for seconds in [1.0] * 300 + [0.1] * 150:
            clock.now += seconds
            progress.advance()
        assert progress.rate == pytest.approx(10)


def test_a_first_step_in_no_time_at_all(clock):
    assert len(piped_lines(clock, 2, 0.0)) == 2


def test_nothing_to_do(clock):
    assert piped_lines(clock, 0, 1.0) == []
    assert piped_lines(clock, 5, 1.0, start=5) == []


def test_text_is_not_taken_for_markup_and_long_lines_stay_whole():
    out = io.StringIO()
    with Progress(1, "[bold]x", console=Console(file=out, width=40)) as progress:
        progress.print("[red]" + "long " * 40 + "[/red]")
        progress.advance("[/] status")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("[red]long")
    assert lines[0].endswith("[/red]")
    assert lines[1].startswith("[bold]x: 1/1")
    assert lines[1].endswith("[/] status")


def test_standard_output_stays_free_and_an_exception_passes():
    program = (
        "from timfuse.runtime.progress import Progress\n"
        "with Progress(2, 'searching') as progress:\n    progress.advance()\n    raise KeyError('mine')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == ""
    assert done.stderr.startswith("searching: 1/2")
    assert "KeyError: 'mine'" in done.stderr


def test_on_a_terminal_there_is_one_bar_and_messages_stand_above_it():
    program = (
        "from timfuse.runtime.progress import Progress\n"
        "with Progress(20, 'searching', 10) as progress:\n"
        "    for step in range(10):\n"
        "        progress.advance(f'loss {step}')\n"
        "        if step == 4: progress.print('a message')"
    )
    terminal, end = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"}
    process = subprocess.Popen([sys.executable, "-c", program], stderr=end, stdout=end, env=environment)
    os.close(end)
    shown = b""
    # Reading the end of a terminal whose other side is closed is an error on Linux.
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:
        pass
    os.close(terminal)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    assert lines.count("a message") == 1
    last = lines[-1]
    for fact in ("searching", "20/20", "steps/s", "left", "loss 9"):
        assert fact in last, text


def test_a_time_beyond_all_calendars_is_shown(clock):
    out = io.StringIO()
    with Progress(10**18, "searching", console=Console(file=out)) as progress:
        clock.now += 3600
        progress.advance()
        clock.now += 3600
        progress.advance()
    assert ": 2/1000000000000000000, " in out.getvalue() or ": 1/1000000000000000000, " in out.getvalue()
    assert "999999999 days" in out.getvalue()
