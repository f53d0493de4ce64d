"""Of the processes of a run the first one writes, and all begin with the same config and data or not at all."""

import pytest

from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import Section
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.history import read_history
from timfuse.runtime.led_run import open_led_run

from ..processes import finish, start

# Each case in a run of its own; the processes differ in what the case says.
PROGRAM = """
import os, sys
from pathlib import Path
from timfuse.runtime.config import Section
from timfuse.runtime.distribution import open_ranks
from timfuse.runtime.errors import UserError
from timfuse.runtime.led_run import open_led_run


class Data(Section):
    crop: int = 8
    workers: int = 0


class Config(Section):
    data: Data = Data()
    seed: int = 0


folder, own = Path(sys.argv[1]), int(os.environ["RANK"])
cases = {
    "same": (Config(data=Data(workers=own)), 5, "x"),
    "again": (Config(), 5, "x"),
    "config": (Config(data=Data(crop=8 + own)), 5, "x"),
    "pairs": (Config(), 5 + own, f"{own}"),
    "files": (Config(), 5, f"{own}"),
}
for name, (config, pairs, fingerprint) in cases.items():
    options = {"resume": name == "again", "overwrite": False, "harmless": ("data.workers",)}
    try:
        with (
            open_ranks() as ranks,
            open_led_run(folder, config, ranks, pairs=pairs, fingerprint=lambda: fingerprint, **options) as run,
        ):
            first = run.load_checkpoint()["step"] if run.resumes else 0
            run.start("counting", 4, first)
            for step in range(first, first + 2):
                run.log(step, {"value": 2 * step})
                run.advance("")
            run.save_checkpoint({"step": first + 2})
            print(name, run.resumes, first)
    except (UserError, SystemExit) as error:
        print(f"{name}: {error}")
"""


@pytest.mark.slow
def test_the_first_process_writes_and_all_see_the_same(tmp_path):
    program, folder = tmp_path / "program.py", tmp_path / "run"
    program.write_text(PROGRAM)
    codes, outputs, lines = finish(start([str(program), str(folder)], 2))
    assert codes == [0, 0], lines
    assert outputs[0].splitlines() == [
        "same False 0",
        "again True 2",
        "config: rank 1 has another config than rank 0: data.crop is 9 against 8;"
        " start all ranks with the same command",
        "pairs: rank 1 sees other data than rank 0: 6 pairs against 5; give every machine the same folder",
        "files: rank 1 sees other data than rank 0: 5 pairs, of which some have other names, images, labels or"
        " purposes; give every machine the same folder",
    ]
    assert outputs[1].splitlines() == ["same False 0", "again True 2", "config: 2", "pairs: 2", "files: 2"]
    assert [row["value"] for row in read_history(folder / "history.jsonl")] == [0, 2, 4, 6]
    assert load_checkpoint(folder / "checkpoint.pt") == {"step": 4}


def test_one_process_compares_nothing(tmp_path):
    options = {"resume": False, "overwrite": False, "harmless": (), "pairs": 1}
    with open_led_run(tmp_path / "run", Section(), ALONE, fingerprint=lambda: 1 / 0, **options) as run:
        assert not run.resumes
