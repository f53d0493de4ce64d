"""The border of the command line: what is one line, and what keeps its traceback."""

import errno

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


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("x"), OSError("no number")])
def test_a_defect_keeps_its_traceback(monkeypatch, error):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(type(error)):
        cli.main([])
