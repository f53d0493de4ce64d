"""Commands that are killed at a random moment, once or several times, and what they have to reach all the same."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

from timfuse.genotypes import load_genotype
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.tuning import storage

from ..equality import assert_same
from ..pages import untimed
from .guarded import run
from .inputs import told

# Words that start a command, and further words that go on after a kill.
COMMANDS = {
    "search": ("search -c search.yaml --set search.steps=6", "--resume"),
    "search, two seeds": ("search -c search.yaml --seeds 2", "--resume"),
    "search, verified": (
        "search -c search.yaml --set search.steps=3 --set data.crop=24 --front 9kparams --set verify.candidates=2"
        " --set verify.steps=2 --set verify.rounds=2 --set verify.validation_pairs=1",
        "--resume",
    ),
    "train": ("train -c train.yaml --set train.steps=6 --set train.images=1", "--resume"),
    "meta-init": ("meta-init -c meta-init.yaml", "--resume"),
    "adapt": ("adapt -c adapt.yaml", "--overwrite"),
    "finetune": ("finetune -c finetune.yaml --set train.images=1", "--resume"),
    "tune": ("tune -c tune.yaml --trials 1", ""),
    "fuse": ("fuse --data labelled -o out/run -n net --device cpu --labels out/run/labels", "--resume"),
}
_OWN = (".lock", "study.db", "study.yaml")  # differ from run to run, as do the events of TensorBoard
storage.HEARTBEAT_SECONDS, storage.GRACE_SECONDS = 1, 2  # so that a killed worker is soon known to be dead


def prepare(good: Path, folder: Path) -> None:
    """Copy what the commands need."""
    folder.mkdir()
    for source in (*good.glob("*.yaml"), *(good / name for name in ("labelled", "net", "cache"))):
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / source.name)
    shutil.copytree(good / "out/meta-init-done", folder / "out/meta-init-done")


def kill(name: str, good: Path, whole: Path, folder: Path, seed: int, number: int) -> tuple[int, float, str]:
    """Run a command in a folder that does not exist, kill it now and then, and compare with a run that was left alone.

    Args:
        whole: Folder of the run that was left alone; is made by the first call.

    Returns:
        How often the command was killed, the seconds of the last run, and what is wrong in the end, "" for nothing.
    """
    draw = Random(f"{seed} {name} {number}")
    start, more = (words.split() for words in COMMANDS[name])
    if not whole.exists():
        prepare(good, whole)
        done = run(start, whole)
        assert (done.code, done.errors, done.harm) == (0, [], []), done
        (whole / "measured.json").write_text(json.dumps([done.seconds, done.changes]))
    seconds, changes = json.loads((whole / "measured.json").read_text())
    prepare(good, folder)
    kills, words = 0, start
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if draw.random() < 0.5:
            last = draw.randrange(changes) + 1
            done = run(words, folder, stop_at=lambda changed, event, paths, at=last: changed == at)
        else:
            done = run(words, folder, kill_after=draw.uniform(0, seconds))
        kills += done.code == -9
        words = [*start, *more]
        if done.code not in (0, -9) or done.harm:
            return kills, done.seconds, f"killed or not, it ended with {done.code}: {[*done.harm, *done.errors][:3]}"
    done = run(words, folder)
    if (done.code, told(done), done.harm) != (0, [], []):
        return kills, done.seconds, f"went on to {done.code}: {[*done.harm, *done.errors][:3]}"
    return kills, done.seconds, difference(whole / "out/run", folder / "out/run", results=name != "tune")


def difference(whole: Path, resumed: Path, *, results: bool) -> str:
    """Name the first difference of two folders of runs, "" if they are the same.

    Args:
        results: Whether to compare the files and not their names alone: a trial that was killed before its settings
            were stored draws others.
    """
    first, second = (_files(folder) for folder in (whole, resumed))
    if first != second:
        return f"files differ: {', '.join(sorted(map(str, first ^ second))[:5])}"
    for file in sorted(first) if results else ():
        try:
            _assert_same(whole / file, resumed / file)
        except AssertionError as error:
            return f"{file} differs: {str(error).splitlines()[0]:.200}"
    return ""


def _files(folder: Path) -> set[Path]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in found if path.name not in _OWN and not path.name.startswith("events.out")}


def _assert_same(whole: Path, resumed: Path) -> None:
    if whole.name == "checkpoint.pt":
        assert_same(load_checkpoint(whole), load_checkpoint(resumed), "checkpoint")
    elif whole.name == "genotype.yaml":
        first, second = (load_genotype(path) for path in (whole, resumed))
        assert replace(first, provenance={}) == replace(second, provenance={}), "genotypes"
        assert first.provenance | {"latency": 0} == second.provenance | {"latency": 0}, "provenance"
    elif whole.name == "report.html":
        assert untimed(whole) == untimed(resumed), "report"
    elif whole.name == ".written":  # in the order of writing
        assert {*whole.read_text().splitlines()} == {*resumed.read_text().splitlines()}, "names"
    else:
        assert whole.read_bytes() == resumed.read_bytes(), "bytes"
