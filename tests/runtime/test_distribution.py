import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.runtime.distribution import Ranks, open_ranks

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from timfuse.runtime.distribution import open_ranks

with open_ranks() as ranks:
    seen = {"rank": ranks.rank, "count": ranks.count, "leads": ranks.leads}
    for total in (2, 4):
        own = ranks.share(range(total))
        rows = torch.tensor([[item + 0.1, 1 / 3 ** item] for item in own]).reshape(len(own), 2)
        seen[f"gathered {total}"] = ranks.gather(rows, total).tolist()
    seen["agreed"] = [ranks.agree(10 + ranks.rank), ranks.agree(ranks.leads)]
Path(sys.argv[1], f"{seen['rank']}.json").write_text(json.dumps(seen))
"""


@given(items=st.lists(st.integers()), count=st.integers(1, 5))
def test_every_item_has_one_process(items, count):
    shares = [Ranks(rank, count).share(items) for rank in range(count)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_alone(monkeypatch):
    for environment in ({}, {"WORLD_SIZE": "1"}):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with open_ranks() as ranks:
            assert ranks == Ranks(0, 1)
            assert ranks.leads
            rows = torch.rand(3, 2)
            assert ranks.gather(rows, 3) is rows
            assert ranks.share("abc") == "abc"
            assert (ranks.agree(7), ranks.agree(False)) == (7, 0)
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
    assert all(one["agreed"] == [10, 1] for one in seen)
