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
from timfuse.runtime.progress import Progress

LARGEST = ("slowest", "megabytes")  # columns that show the largest number; the others show sums
COLUMNS = ("inputs", "accepted", "refused", "kills", "failures", "seconds", *LARGEST)


class Faults:
    """Inputs and kills in a folder, and their counts.

    Args:
        place: An empty folder.
        keep: Gets the folders of what fails; None to keep none.
    """

    def __init__(self, place: Path, seed: int, keep: Path | None) -> None:
        self.rows: dict[str, dict[str, float]] = {}
        self._good, self._folder, self._seed, self._keep = place / "good", place / "input", seed, keep
        self._good.mkdir()
        write_good(self._good)

    def fuzz(self, kind: str, number: int, *, show: bool = False) -> None:
        """Run the command of an input."""
        self._folder.mkdir()
        outcome = try_input(self._good, self._folder, kind, self._seed, number)
        done, failure = outcome.done, outcome.failure
        if show:
            print(f"{outcome.file}: timfuse {outcome.command}\n{done.output}", *done.errors, sep="\n")
        kept = {"accepted": done.code <= 0 and not failure, "refused": done.code > 0 and not failure}
        spent = {"seconds": done.seconds, "slowest": done.seconds, "megabytes": done.memory / 2**20}
        failure = failure and f"{outcome.file}, {outcome.command}: {failure}"
        self._add(kind, f"{kind}:{number}", failure, inputs=1, **kept, **spent)

    def kill(self, command: str, number: int) -> int:
        """Kill a command once or several times; return how often."""
        whole = self._good.with_name(f"whole-{command}")
        kills, seconds, failure = kill(command, self._good, whole, self._folder, self._seed, number)
        self._add(f"killed {command}", f"{command}:{number}", failure, kills=kills, seconds=seconds, slowest=seconds)
        return kills

    def _add(self, what: str, label: str, failure: str, **numbers: float) -> None:
        row = self.rows.setdefault(what, dict.fromkeys(COLUMNS, 0))
        for name, value in {**numbers, "failures": bool(failure)}.items():
            row[name] = max(row[name], value) if name in LARGEST else row[name] + value
        if failure:
            print(f"{label}: {failure}", flush=True)
            if self._keep:
                shutil.copytree(self._folder, self._keep / label.replace(":", "-"), dirs_exist_ok=True)
        shutil.rmtree(self._folder)


def inputs(kinds: list[str]) -> Iterator[tuple[str, int]]:
    """Yield kinds and numbers of inputs without end, each kind by its share."""
    for first in count():
        for kind in kinds:
            share = KINDS[kind].share
            yield from ((kind, number) for number in range(first * share, (first + 1) * share))


def main() -> None:
    """Do what the command line asks for, and end with exit code 1 if anything fails."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--count", type=int, default=0, help="number of mutated files")
    parser.add_argument("--kills", type=int, default=0, help="least number of kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of files, joined by commas; default: all")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one input, with all that it prints")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="gets the folders of what fails")
    parser.add_argument("--results", type=Path, metavar="FILE", help="gets the counts, as CSV")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        faults = Faults(Path(place).resolve(), given.seed, given.keep)
        if given.only:
            kind, _, number = given.only.partition(":")
            faults.fuzz(kind, int(number), show=True)
        with Progress(given.count, "mutated files", unit="files") as progress:
            for kind, number in islice(inputs(given.kinds.split(",")), given.count):
                faults.fuzz(kind, number)
                progress.advance(f"{kind}:{number}")
        with Progress(given.kills, "kills", unit="kills") as progress:
            for number, command in enumerate(cycle(COMMANDS)):
                if progress.completed >= given.kills:
                    break
                for _ in range(faults.kill(command, number)):
                    progress.advance(command)
    table = [("what", *COLUMNS)]
    table += [(what, *(f"{round(value, 1):g}" for value in row.values())) for what, row in faults.rows.items()]
    for what, *cells in table:
        print(f"{what:<25}", *(f"{cell:>9}" for cell in cells))
    if given.results:
        with given.results.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(table)
    raise SystemExit(any(row["failures"] for row in faults.rows.values()))


if __name__ == "__main__":
    main()
