"""Several processes on one study, one of which is killed: no trial is lost."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from timfuse.genotypes import load_genotype
from timfuse.tuning import show
from timfuse.tuning.storage import connected, parse_url
from timfuse.tuning.study import load_study, trial_number

# The command, with dead workers noticed soon.
PROGRAM = """
from timfuse.tuning import storage
storage.HEARTBEAT_SECONDS, storage.GRACE_SECONDS = 1, 3
from timfuse.cli import main
main()
"""
STEPS = 6


def start(*options):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "tune", "--config", "tiny.yaml", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "1000"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_what_a_killed_worker_leaves_is_finished_by_another(tiny, database, request):
    url = request.getfixturevalue("postgresql") if database == "postgresql" else None
    options = ["--trials", "3", "--set", f"search.search.steps={STEPS}", *(["--storage", url] if url else [])]
    workers = [start(*options), start(*options)]
    try:
        history = Path("run/trials/0001/search/history.jsonl")
        while not (history.is_file() and history.read_bytes().count(b"\n") >= 2):
            assert workers[0].poll() is None, workers[0].communicate()[1]
            time.sleep(0.02)
        owner = (history.parent / ".lock").read_text().strip()
        workers.sort(key=lambda worker: str(worker.pid) == owner)
        survivor, killed = workers
        killed.send_signal(signal.SIGKILL)
        output, errors = survivor.communicate(timeout=120)
        assert survivor.returncode == 0, errors
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    config = tiny(f"search.search.steps={STEPS}")
    with connected(parse_url(url, config.run)) as storage:
        known = load_study("tune", storage).get_trials()
        done = [trial for trial in known if trial.state == TrialState.COMPLETE]
        # The trial that was interrupted is among them, with its settings.
        (lost,) = (trial for trial in known if trial.state == TrialState.FAIL)
        (again,) = (trial for trial in done if trial_number(trial) == lost.number)
        assert again.params == lost.params
        assert len(done) == 3
        assert set(Counter(map(trial_number, done)).values()) == {1}
    assert history.read_bytes().count(b"\n") == STEPS
    assert "trials/0001/search has no checkpoint yet" not in errors
    assert "front.png" in output
    assert "a-secret" not in output + errors
    front = show(config, url)
    for point in front.best:
        assert load_genotype(config.run / "front" / f"{point.number:02d}-genotype.yaml").provenance["tuning"]
