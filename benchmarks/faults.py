"""No file does harm and no kill loses anything: mutated files of every kind, and commands that are killed.

    python -m benchmarks.faults --count 5000 --kills 200   # from the root of the repository, with timfuse installed

A command that reads a mutated file ends with exit code 0, or with 2 and one line; `fuse` may leave damaged pairs out,
with 1 and a line for each. It changes no file outside the folders for its output, starts no process but that of its
drawings, reaches no other machine, and takes bounded time and memory. What is killed goes on to the same files.

An input is made from its kind, the seed and a number; `--only KIND:NUMBER` makes the same one again.
"""

import argparse
import csv
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count, cycle, islice
from pathlib import Path

import torch

from tests.fuzz.inputs import try_input
from tests.fuzz.kills import COMMANDS, kill
from tests.fuzz.kinds import KINDS, write_good

COLUMNS = ("what", "inputs", "accepted", "refused", "kills", "failures", "seconds", "slowest", "megabytes")


def main() -> None:
    """Do what the command line asks for, and end with exit code 1 if anything fails."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--count", type=int, default=0, help="number of mutated files")
    parser.add_argument("--kills", type=int, default=0, help="least number of kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of files, joined by commas; default: all")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one input, with all that is known about it")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="gets the folders of what fails")
    parser.add_argument("--results", type=Path, metavar="FILE", help="gets the counts, as CSV")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}

    def note(what: str, label: str, failure: str, **numbers: float) -> None:
        """Add to the counts of a kind or command, and drop the folder of the input."""
        row = rows.setdefault(what, dict.fromkeys(COLUMNS[1:], 0))
        for name, value in {**numbers, "failures": bool(failure)}.items():
            row[name] = max(row[name], value) if name in ("slowest", "megabytes") else row[name] + value
        if failure:
            print(f"{label}: {failure}", flush=True)
            if given.keep:
                shutil.copytree(folder, given.keep / label.replace(":", "-"), dirs_exist_ok=True)
        shutil.rmtree(folder)

    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        good, folder = Path(name).resolve() / "good", Path(name).resolve() / "input"
        good.mkdir()
        write_good(good)
        for kind, number in (
            [given.only.split(":")] if given.only else islice(inputs(given.kinds.split(",")), given.count)
        ):
            folder.mkdir()
            outcome = try_input(good, folder, kind, given.seed, int(number))
            done, failure = outcome.done, outcome.failure
            if given.only:
                print(f"{outcome.file}: timfuse {outcome.command}\n{done.output}", *done.errors, sep="\n")
            kept = {"accepted": not failure and done.code <= 0, "refused": not failure and done.code > 0}
            spent = {"seconds": done.seconds, "slowest": done.seconds, "megabytes": done.memory / 2**20}
            note(
                kind,
                f"{kind}:{number}",
                failure and f"{outcome.file}, {outcome.command}: {failure}",
                inputs=1,
                **kept,
                **spent,
            )
        runs = cycle(COMMANDS)
        for number in count():
            if sum(row["kills"] for row in rows.values()) >= given.kills:
                break
            command = next(runs)
            kills, seconds, failure = kill(
                command, good, good.with_name(f"whole-{command}"), folder, given.seed, number
            )
            note(f"killed {command}", f"{command}:{number}", failure, kills=kills, seconds=seconds, slowest=seconds)
    table = [COLUMNS, *([what, *(round(value, 1) for value in row.values())] for what, row in rows.items())]
    for line in table:
        print(*(f"{cell:>20}" if cell is line[0] else f"{cell:>9}" for cell in line))
    if given.results:
        with given.results.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(table)
    raise SystemExit(any(row["failures"] for row in rows.values()))


def inputs(kinds: list[str]) -> Iterator[tuple[str, int]]:
    """Yield kinds and numbers of inputs without end, each kind by its share."""
    for first in count():
        for kind in kinds:
            share = KINDS[kind].share
            yield from ((kind, number) for number in range(first * share, (first + 1) * share))


if __name__ == "__main__":
    main()
