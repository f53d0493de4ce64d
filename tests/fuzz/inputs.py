"""Inputs: a mutated file in a folder with all that a command needs, and what the command has to do with it."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

import timfuse

from .guarded import ALLOWED, Done, after_checkpoint, run
from .kinds import KINDS, fill
from .mutations import MUTATIONS

MEMORY = 2**30  # bytes that a command may take for images of some hundred pixels
_PROGRAM = Path(timfuse.__file__).parent
_STOPPED = re.compile(r"error: stopped (before step|after) .*; go on with --resume")
_NOTE = re.compile(r"\d+ of \d+ pairs in .+ are taken to show no object|waiting for \d+ trials? of other workers; .+")
_FAILED_PAIR = re.compile(r"error: the pair .+: .+")


@dataclass(frozen=True)
class Outcome:
    """What a command did with an input.

    Attributes:
        failure: What it must not do, in one line; "" for nothing.
    """

    kind: str
    index: int
    file: str
    command: str
    done: Done
    failure: str


def try_input(good: Path, folder: Path, kind: str, seed: int, index: int) -> Outcome:
    """Make the input of a kind with this seed and number in an empty folder, and run its command.

    Args:
        good: What `write_good` wrote.
    """
    draw = Random(f"{seed} {kind} {index}")
    table = KINDS[kind]
    file = draw.choice(sorted(good.glob(draw.choice(table.files))))
    path = file.relative_to(good)
    command = fill(draw.choice(table.commands), path)
    for name in {fill(need, path) for need in (*table.needs, _whole(path))}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (good / name).is_dir() else shutil.copyfile)(good / name, folder / name)
    shutil.copytree(good / "cache", folder / "cache")
    content = original = file.read_bytes()
    while content == original:
        content = draw.choice(MUTATIONS[file.suffix or file.name])(draw, original)
    (folder / path).write_bytes(content)
    before = _snapshot(folder)
    # What comes after the first checkpoint takes long, and is the same for most inputs.
    done = run(command.split(), folder, stop_at=None if draw.random() < 0.2 else after_checkpoint())
    failure = failure_of(command, done)
    if not failure and (changed := {str(name) for name, _ in before.items() ^ _snapshot(folder).items()}):
        failure = f"changed {', '.join(sorted(changed))}"
    if not failure and not done.stopped and (left := [path.name for path in folder.rglob(".*.tmp")]):
        failure = f"left {left[0]}"
    return Outcome(kind, index, str(path), command, done, failure)


def _whole(path: Path) -> str:
    """Name what a file belongs to: a run, a folder or itself."""
    return str(Path(*path.parts[:2])) if path.parts[0] == "out" else path.parts[0]


def _snapshot(folder: Path) -> dict[Path, bytes | None]:
    """Read all that a command must leave as it is."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] not in ALLOWED
    }


def failure_of(command: str, done: Done) -> str:
    """Say in one line what a command did and must not do; "" for nothing."""
    if done.harm:
        return done.harm[0]
    if done.code < 0 and not done.stopped:
        return f"ended by signal {-done.code} after {done.seconds:.0f} s"
    if any(line.startswith("Stack (most recent") for line in done.errors):
        if done.code == 2 and _STOPPED.fullmatch(done.errors[-1]):  # it asked for much work, and heeds Ctrl-C
            return ""
        return f"still at {_last_place(done.errors[::-1])} after {done.seconds:.0f} s"
    if any(line.startswith("Traceback") for line in done.errors):
        return f"{done.errors[-1]:.160} at {_last_place(done.errors)}"
    if done.memory > MEMORY:
        return f"took {done.memory / 2**20:.0f} MB"
    lines = [line for line in done.errors if not line.isprintable()]
    if lines:
        return f"printed {lines[0]!r:.160}"
    count = {0: 0, -9: 0, 2: 1}.get(done.code)
    errors = told(done)
    if done.code == 1 and command.startswith("fuse") and all(map(_FAILED_PAIR.fullmatch, errors)):
        count = len(errors)
    if count is None or count != len(errors) or not all(line.startswith("error: ") for line in errors):
        shown = " | ".join(line[:120] for line in done.errors[:4])
        return f"code {done.code} with {len(done.errors)} lines: {shown}"
    return ""


def told(done: Done) -> list[str]:
    """List what a command printed as errors, without the notes that a command prints that goes well."""
    return [line for line in done.errors if not _NOTE.fullmatch(line)]


def _last_place(lines: list[str]) -> str:
    """Name the last line of the program in a traceback."""
    own = re.compile(rf'  File "{re.escape(str(_PROGRAM))}/(?!tests/)(.+)", line (\d+),? in .*')
    places = [":".join(match.groups()) for line in lines if (match := own.match(line))]
    return places[-1] if places else "?"
