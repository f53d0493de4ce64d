"""Several processes do together, to the bit, what one does alone; and end together where something is wrong."""

import signal
import subprocess
import sys
import time

import pytest

from timfuse.meta_init import meta_initialise
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_to_yaml

from ..processes import PATIENCE, finish, start
from .conftest import NOTHING, TASKS
from .test_resume import assert_same_checkpoints, logged

META = {"pretrain": 2, "steps": 4, "rate_learning_rate": 0.1}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("like_a_process")]


def command(config, *options):
    path = config.run.with_suffix(".yaml")
    path.write_text(config_to_yaml(config), encoding="utf-8")
    return ["-m", "timfuse", "meta-init", "--config", str(path), *options]


def test_several_processes_give_what_one_gives_also_where_their_number_changes(tiny):
    meta = {**META, "steps": 20, "checkpoint_every": 1000}
    alone, together = tiny("alone", meta=meta), tiny("together", meta=meta)
    meta_initialise(alone)
    processes = start(command(together), 3)  # of which the last has no task
    while processes[0].poll() is None and logged(together.run) < 4:
        time.sleep(0.005)
    for process in processes:
        process.send_signal(signal.SIGINT)
    codes, outputs, lines = finish(processes)
    step = load_checkpoint(together.run / "checkpoint.pt")["step"]
    assert 4 <= step == logged(together.run)
    assert (codes, outputs) == ([2] * 3, [""] * 3)
    assert lines == [[f"error: stopped before step {step}; go on with --resume"], [], []]
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*runner, *command(together, "--resume")], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation loss after steps") == 1
    assert_same_checkpoints(alone.run, together.run)
    for name in ("weights.safetensors", "weights-last.safetensors", "rates.yaml"):
        assert (alone.run / name).read_bytes() == (together.run / name).read_bytes()


def test_a_folder_with_a_run_ends_all_with_one_line(tiny):
    config = tiny(meta=META)
    config.run.mkdir()
    (config.run / "config.yaml").write_text(config_to_yaml(config))
    codes, _, lines = finish(start(command(config), 2))
    assert codes == [2, 2]
    assert lines[1] == []
    assert len(lines[0]) == 1
    assert "holds a run; go on with --resume, replace it with --overwrite, or name another" in lines[0][0]


def test_a_loss_that_is_not_finite_in_one_process_ends_all_with_one_line(tiny):
    overflowing = {**TASKS["mri-ct"], "loss": {**NOTHING, "intensity": 1e39}}  # the second process has this task
    config = tiny(meta=META, tasks={**TASKS, "mri-ct": overflowing})
    codes, _, lines = finish(start(command(config), 2))
    assert codes == [2, 2]
    assert lines[1] == []
    assert len(lines[0]) == 1
    assert lines[0][0].startswith("error: step 0, task mri-ct: the loss or its gradient is not finite; lower ")
