"""A few hundred mutated files and some kills; `python -m benchmarks.faults` tries thousands."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_file_does_harm_and_no_kill_loses_anything(tmp_path):
    for package in ("faster_coco_eval", "transformers", "torchmetrics"):
        pytest.importorskip(package)
    words = ["--count", "240", "--kills", "8", "--results", str(tmp_path / "counts.csv")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *words], cwd=ROOT, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader((tmp_path / "counts.csv").read_text(encoding="utf-8").splitlines()))
    assert sum(int(row["inputs"]) for row in rows) == 240
    assert sum(int(row["kills"]) for row in rows) >= 8
    # The mutations leave some files usable, and others not.
    assert all(sum(int(row[name]) for row in rows) > 40 for name in ("accepted", "refused"))
