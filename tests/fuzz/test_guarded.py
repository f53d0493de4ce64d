"""What a command does to other folders, processes and machines is seen, and so are its time and its memory."""

import signal

import pytest

from timfuse.runtime.memory import keep_freed_memory

from .guarded import Done, run
from .inputs import failure_of


def command(folder, program):
    """Write a program, and return the words that let the command line run it."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    return ["--operators", "program.py", "config", "train"]


@pytest.mark.parametrize(
    ("program", "harm"),
    [
        ("open('elsewhere', 'w')", "open '{}/elsewhere'"),
        ("open('program.py', 'r+')", "open '{}/program.py'"),
        ("import os; os.mkdir('elsewhere')", "os.mkdir '{}/elsewhere'"),
        ("import os; os.rename('program.py', 'out')", "os.rename '{}/program.py'"),
        ("import os; os.remove('program.py')", "os.remove '{}/program.py'"),
        ("import os; os.system('true')", "os.system b'true'"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen 'true'"),
        ("import socket; socket.create_connection(('localhost', 9))", "socket.getaddrinfo ('localhost', 9"),
    ],
)
def test_harm_is_reported(tmp_path, program, harm):
    done = run(command(tmp_path, program), tmp_path)
    assert done.harm[0].startswith(harm.format(tmp_path))
    assert failure_of("config", done) == done.harm[0]


def test_a_command_may_write_where_its_output_goes_and_draw(tmp_path):
    program = "import os, sys, subprocess; os.mkdir('out'); open('out/a', 'w'); open('program.py'); os.remove('out/a')"
    done = run(command(tmp_path, f"{program}; subprocess.run([sys.executable, '-c', ''])"), tmp_path)
    assert (done.code, done.harm, done.changes, done.stopped) == (2, [], 3, False)
    assert "program.py registers nothing" in done.errors[0]
    assert failure_of("config", done) == ""


def test_a_published_network_is_not_asked_for(tmp_path):
    pytest.importorskip("transformers", reason="published networks need transformers")
    words = "finetune -c finetune-demo --set run=out/run --set downstream.network=someone/detector"
    done = run(words.split(), tmp_path)
    assert (done.code, done.harm, len(done.errors)) == (2, [], 1)
    assert "someone/detector is not a folder and cannot be downloaded" in done.errors[0]


def test_time_and_memory_are_measured_and_bounded(tmp_path):
    done = run(command(tmp_path, "import time; time.sleep(60)"), tmp_path, patience=4)
    assert done.code in (1, 130)
    assert 4 <= done.seconds < 14
    assert failure_of("config", done).startswith("still at operators/operator_files.py:")
    keep_freed_memory()
    bytes(b"x" * (2**30 + 2**26))  # what this process keeps of it is no gift to the command
    done = run(command(tmp_path, "text = b'x' * (2**30 + 2**26)"), tmp_path)
    assert 2**30 < done.memory < 2**32
    assert failure_of("config", done).startswith("took ")
    done = run(command(tmp_path, "b'x' * 2**40"), tmp_path)
    assert (done.code, len(done.errors)) == (2, 1)
    assert "MemoryError" in done.errors[0]


def test_a_command_is_killed_in_time_or_before_a_change(tmp_path):
    program = "import os, time; os.makedirs('out'); open('out/a', 'w'); open('out/b', 'w'); time.sleep(60)"
    done = run(command(tmp_path, program), tmp_path, stop_at=lambda changes, event, paths: changes == 3)
    assert (done.code, done.stopped) == (-signal.SIGKILL, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
    done = run(command(tmp_path, "import time; time.sleep(60)"), tmp_path, kill_after=0.3)
    assert (done.code, done.stopped) == (-signal.SIGKILL, False)
    assert failure_of("config", done) == "ended by signal 9 after 0 s"


@pytest.mark.parametrize(
    ("words", "code", "errors", "failure"),
    [
        ("train", 0, [], ""),
        ("train", 2, ["error: a"], ""),
        ("train", 2, [], "code 2 with 0 lines: "),
        ("train", 2, ["error: a", "error: b"], "code 2 with 2 lines: error: a | error: b"),
        ("train", 2, ["libtiff says a", "error: b"], "code 2 with 2 lines: libtiff says a | error: b"),
        ("train", 0, ["UserWarning: a"], "code 0 with 1 lines: UserWarning: a"),
        ("train", 1, ["error: the pair a: b"], "code 1 with 1 lines: error: the pair a: b"),
        ("fuse", 1, ["error: the pair a: b", "error: the pair c: d"], ""),
        ("fuse", 1, ["error: a"], "code 1 with 1 lines: error: a"),
        ("train", 1, ["Traceback (most recent call last):", "KeyError: 'a'"], "KeyError: 'a' at ?"),
        ("train", 2, ["error: \x1b[2J"], "printed 'error: \\x1b[2J'"),
        ("train", -11, [], "ended by signal 11 after 1 s"),
    ],
)
def test_what_must_not_be_is_named(words, code, errors, failure):
    assert failure_of(words, Done(code, "", errors, [], 1.0, 0, 0, False)) == failure
