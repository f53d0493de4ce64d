"""No file does harm: mutated files of every kind end with exit code 0, or 2 and one line; killed runs lose nothing.

    python -m benchmarks.faults --count 5000 --kills 200   # from the root of the repository, with timfuse installed

Each input is made from its kind, the seed and a number: `--only KIND:NUMBER` runs one again. Nothing may change outside
the folder for the output, no other process start, no other machine be reached, and time and memory stay bounded.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from tests.fuzz.inputs import Outcome, try_input
from tests.fuzz.kinds import KINDS, write_good

COLUMNS = ("kind", "inputs", "accepted", "refused", "failures", "seconds", "slowest", "megabytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=0, help="number of mutated files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="names joined by commas")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one input, with all that it prints")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="for the folders of inputs that fail")
    parser.add_argument("--results", type=Path, metavar="FILE.csv", help="for the counts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        place = Path(name).resolve()
        good = place / "good"
        good.mkdir()
        write_good(good)
        kinds = given.kinds.split(",")
        inputs = [(kinds[number % len(kinds)], number // len(kinds)) for number in range(given.count)]
        if given.only:
            kind, _, number = given.only.partition(":")
            inputs = [(kind, int(number))]
        outcomes = []
        for kind, number in inputs:
            folder = place / f"{kind}-{number}"
            folder.mkdir()
            outcome = try_input(good, folder, kind, given.seed, number)
            outcomes.append(outcome)
            if outcome.failure or given.only:
                print(f"{kind}:{number} {outcome.file}, {outcome.command}: {outcome.failure}", flush=True)
            if given.only:
                print(outcome.done.output, *outcome.done.errors, outcome.done, sep="\n")
            if given.keep and outcome.failure:
                shutil.copytree(folder, given.keep / folder.name, dirs_exist_ok=True)
            shutil.rmtree(folder)
    rows = count(outcomes)
    for row in (COLUMNS, *rows):
        print(*(f"{cell:>15}" for cell in row))


def count(outcomes: list[Outcome]) -> list[tuple]:
    rows = []
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        failures = sum(outcome.failure != "" for outcome in own)
        accepted = sum(outcome.done.code == 0 and not outcome.failure for outcome in own)
        seconds = [outcome.done.seconds for outcome in own]
        memory = max(outcome.done.memory for outcome in own) / 2**20
        rows.append((kind, len(own), accepted, len(own) - accepted - failures, failures, f"{sum(seconds):.1f}", f"{max(seconds):.2f}", f"{memory:.0f}"))
    return rows


if __name__ == "__main__":
    main()
