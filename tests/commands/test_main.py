"""The border of the command line: what is one line, and what keeps its traceback."""

import errno
import io
import os
import subprocess
import sys
import warnings

import pytest
import torch

from timfuse import cli
from timfuse.runtime.errors import UserError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a\nb\x1b[2J"), "a\\nb\\x1b[2J"),
        (PermissionError(errno.EACCES, "Permission denied", "x/\ny"), "cannot use x/\\ny: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (MemoryError(), "there is not enough memory for this; lower data.crop, "),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "there is not enough memory for this; lower data.crop, "),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you"),
            "there is not enough memory for this; lower ",
        ),
        (RuntimeError("Symlink loop from '/x/y'"), "Symlink loop from '/x/y'; remove the link"),
        (RuntimeError("Could not determine home directory."), "there is no such user as a path names after ~; "),
        (ValueError("embedded null byte"), "a path holds the character NUL"),
    ],
)
def test_what_is_no_defect_is_one_line(monkeypatch, capsys, error, line):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    printed = capsys.readouterr().err
    assert (ended.value.code, printed.count("\n")) == (2, 1)
    assert printed.startswith(f"error: {line}")


def test_a_long_line_loses_its_middle(monkeypatch, capsys):
    def fail(arguments):
        raise UserError("begin " + "x" * 9000 + " end")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main([])
    printed = capsys.readouterr().err
    assert printed.startswith("error: begin xxx")
    assert " ... " in printed
    assert printed.endswith("x end\n")
    assert len(printed) < 1100


def test_libraries_warn_nobody(monkeypatch, capsys):
    monkeypatch.setattr(cli, "app", lambda arguments: warnings.warn("a library", stacklevel=1))
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        cli.main([])
    assert given == []
    assert capsys.readouterr() == ("", "")


def test_a_terminal_that_cannot_show_a_name_gets_it_escaped(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(cli, "app", lambda arguments: print("n\xe4me \udcff"))
    cli.main([])
    out.flush()
    assert out.buffer.getvalue() == b"n\\xe4me \\udcff\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["fuse"], "Missing option '--output' / '-o'; see `"),
        (["train", "--bogus"], "No such option: --bogus; see `"),
        (["scenes", "-o", "x", "--count", "many"], "Invalid value for '--count': "),
    ],
)
def test_words_that_fit_no_command_are_one_line(refused, words, line):
    told = refused(*words)
    assert told.startswith(line)
    assert told.endswith(f"{words[0]} --help`")


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("x"), OSError("no number")])
def test_a_defect_keeps_its_traceback(monkeypatch, error):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(type(error)):
        cli.main([])


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_busily_for_a_short_while_unless_the_user_says_how(monkeypatch, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is as before after the test
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "app", lambda arguments: None)
    cli.main([])
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_torch_is_imported_after_the_environment_is_set():
    code = "import sys, timfuse.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
