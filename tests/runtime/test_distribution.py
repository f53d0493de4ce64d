"""Several processes share work, agree on numbers, and end together with one line where something is wrong."""

import json
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.runtime.distribution import ALONE, Ranks, open_ranks
from timfuse.runtime.errors import UserError

from ..processes import finish, start

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from timfuse.runtime.distribution import open_ranks

for _ in range(2):  # one run after the other
    with open_ranks() as ranks, open_ranks() as same:
        assert ranks == same
        seen = {"rank": ranks.rank, "count": ranks.count, "leads": ranks.leads}
        for total in (2, 4):
            own = ranks.share(range(total))
            rows = torch.tensor([[item + 0.1, 1 / 3 ** item] for item in own]).reshape(len(own), 2)
            seen[f"gathered {total}"] = ranks.gather(rows, total).tolist()
        seen["agreed"] = [ranks.agree(10 + ranks.rank), ranks.agree(ranks.leads)]
        seen["collected"] = ranks.collect(f"of {ranks.rank}")
        made = ranks.from_leader(lambda: {"by": ranks.rank, "tensor": torch.arange(3)})
        seen["made"] = [made["by"], made["tensor"].tolist()]
        x = torch.full((2, 2), float(ranks.rank), dtype=torch.float64, requires_grad=True)
        y = torch.tensor([1.0, 2.0])
        mean, other = ranks.average([x**3, y * ranks.rank])
        seen["mean"] = [mean.tolist(), other.tolist(), str(other.dtype)]
        (gradient,) = torch.autograd.grad(mean.sum() * (ranks.rank + 1), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.sum(), x)
        seen["derivatives"] = [gradient[0, 0].item(), second[0, 0].item()]
Path(sys.argv[1], f"{seen['rank']}.json").write_text(json.dumps(seen))
"""

FAILING = """
import sys, time
from timfuse.runtime.distribution import open_ranks
from timfuse.runtime.errors import UserError
from timfuse.runtime.seeds import seed_everything

failing, kind, late = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "late"
try:
    with open_ranks() as ranks:
        seed_everything(0)  # by which torch imports more of itself
        if late:
            ranks.agree(0)
        if ranks.rank == failing and kind == "user error":
            raise UserError("the disk is full; empty it")
        if ranks.rank == failing and kind == "defect":
            raise ZeroDivisionError("by zero")
        time.sleep(0.2 * ranks.leads)
        for step in range(3):
            ranks.agree(step)
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
"""


@given(items=st.lists(st.integers()), count=st.integers(1, 5))
def test_every_item_has_one_process(items, count):
    shares = [Ranks(rank, count).share(items) for rank in range(count)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("size", "count", "sizes"), [(4, 3, "3 or 6"), (7, 2, "6 or 8"), (1, 4, "4"), (9, 4, "8 or 12")]
)
def test_a_size_that_cannot_be_split_evenly_is_one_line(size, count, sizes):
    with pytest.raises(UserError, match=f"^batch = {size} cannot be split evenly among {count} ranks; take {sizes}$"):
        Ranks(0, count).check_even("batch", size)
    Ranks(0, count).check_even("batch", size * count)


def test_one_process_alone(monkeypatch):
    for environment in ({}, {"WORLD_SIZE": "1"}):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with open_ranks() as ranks:
            assert ranks == ALONE == Ranks(0, 1)
            assert ranks.leads
            rows = torch.rand(3, 2)
            assert ranks.gather(rows, 3) is rows
            assert ranks.average([rows])[0] is rows
            assert ranks.share("abc") == "abc"
            assert (ranks.agree(7), ranks.agree(False)) == (7, 0)
            assert (ranks.collect("x"), ranks.from_leader(lambda: "y")) == (["x"], "y")
        assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_three_processes_agree_to_the_bit(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", str(tmp_path / "program.py")]
    done = subprocess.run([sys.executable, *command, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [(one["rank"], one["count"], one["leads"]) for one in seen] == [(0, 3, True), (1, 3, False), (2, 3, False)]
    for total in (2, 4):
        alone = torch.tensor([[item + 0.1, 1 / 3**item] for item in range(total)]).tolist()
        assert all(one[f"gathered {total}"] == alone for one in seen)
    for one in seen:
        assert one["agreed"] == [10, 1]
        assert one["collected"] == ["of 0", "of 1", "of 2"]
        assert one["made"] == [0, [0, 1, 2]]
        assert one["mean"] == [[[3.0, 3.0], [3.0, 3.0]], [1.0, 2.0], "torch.float32"]  # (0 + 1 + 8) / 3
        # Of the sum of all processes' losses, (1 + 2 + 3) mean(x^3), by this process's x.
        assert one["derivatives"] == pytest.approx([6 * one["rank"] ** 2, 12 * one["rank"]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "kind", "when", "line"),
    [
        (0, "user error", "late", "the disk is full; empty it"),
        (1, "user error", "at once", "rank 1: the disk is full; empty it"),
        (1, "defect", "late", "another process of this run has ended; see what it printed, and go on with --resume"),
    ],
)
def test_an_error_in_one_process_ends_all_within_seconds(tmp_path, failing, kind, when, line):
    program = tmp_path / "program.py"
    program.write_text(FAILING)
    started = time.monotonic()
    codes, _, lines = finish(start([str(program), str(failing), kind, when], 3))
    assert time.monotonic() - started < 60
    assert lines[0] == [f"error: {line}"]
    assert lines[2] == []
    assert (codes[0], codes[2]) == (2, 2)
    if kind == "defect":
        assert lines[1][-1].endswith("ZeroDivisionError: by zero")
    else:
        assert (lines[1], codes[1]) == ([], 2)


@pytest.mark.slow
def test_processes_that_do_not_meet_are_one_line(monkeypatch):
    program = (
        "from timfuse.runtime import distribution\n"
        "from timfuse.runtime.errors import UserError\n"
        "try:\n"
        "    with distribution.open_ranks(): pass\n"
        "except UserError as error: print(error)\n"
    )
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("the processes of the run do not meet at None:None: ")
    assert done.stdout.endswith("; start them with torchrun\n")
    assert done.stdout.count("\n") == 1
