"""Runs of every stage, killed, stopped, moved and resumed, end with the same bytes as runs that were left alone."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from timfuse.genotypes import load_genotype
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import Section
from timfuse.training import train

from .equality import assert_same
from .pages import untimed
from .processes import CommandLine
from .tiny_runs import (
    DETECTION,
    tiny_finetuning,
    tiny_meta_initialisation,
    tiny_search,
    tiny_training,
    write_config,
    write_networks,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EVERY = {"checkpoint_every": 5, "validate_every": 4}
# Where everything that a strategy keeps changes at every step.
GUIDANCE = {"tolerance": 0.0, "multiplier_rate": 20.0, "loss_learning_rate": 0.1, "detector_steps": 3}
ANY_FILE_BUT = (".lock", ".written", "config.yaml", "genotype.yaml", "checkpoint.pt")


@dataclass(frozen=True)
class Case:
    """A run and where to kill it.

    Attributes:
        command: The stage's command.
        make: Makes the config of a run folder, with files in a second folder.
        steps: The steps of the run in all.
        kills: Numbers of steps in the history at which the process is killed, before the first checkpoint and after.
        concluding: A file that the conclusion writes long before its end; "" where another case has this conclusion.
        options: Further words of the command line.
    """

    command: str
    make: Callable[[Path, Path], Section]
    steps: int
    kills: Sequence[int]
    concluding: str = ""
    options: Sequence[str] = ()


def finetuning(strategy, steps=10):
    def make(run, folder):
        guidance = {**GUIDANCE, "strategy": strategy}
        return tiny_finetuning(run, folder, guidance=guidance, train={"steps": steps, **EVERY})

    return make


CASES = {
    "search": Case(
        "search",
        lambda run, folder: tiny_search(run, search={"steps": 20, "warmup": 6, "mixture": "gumbel", **EVERY}),
        20,
        (2, 8),
        "weights.safetensors",
    ),
    "search by detection": Case(
        "search",
        lambda run, folder: tiny_search(
            run, data={"crop": 32}, search={"steps": 12, "warmup": 6, **EVERY}, downstream=DETECTION
        ),
        12,
        (2, 8),
    ),
    "search with two seeds": Case(
        "search",
        lambda run, folder: tiny_search(run, search={"steps": 6, "warmup": 2, **EVERY}),
        12,
        (2, 8),
        "weights.safetensors",
        ("--seeds", "2"),
    ),
    "search for a refine network with two seeds": Case(
        "search",
        lambda run, folder: tiny_search(
            run,
            first_stage=str(folder / "first"),
            space={"preset": "tim-refine", "cells": ["successive"] * 2, "sources": ["first", "second"]},
            search={"steps": 6, "warmup": 2, **EVERY},
        ),
        12,
        (2, 8),
        "",
        ("--seeds", "2"),
    ),
    "train": Case(
        "train",
        lambda run, folder: tiny_training(run, folder, train={"steps": 20, **EVERY}),
        20,
        (2, 13),
        "pictures/examples.png",
    ),
    "train a refine network": Case(
        "train",
        lambda run, folder: tiny_training(
            run,
            folder,
            genotype=str(folder / "refine.yaml"),
            first_stage=str(folder / "first"),
            train={"steps": 12, **EVERY},
        ),
        12,
        (2, 8),
    ),
    "meta-init": Case(
        "meta-init",
        lambda run, folder: tiny_meta_initialisation(
            run, folder, meta={"pretrain": 6, "steps": 10, "rate_learning_rate": 0.1, **EVERY}
        ),
        16,
        (2, 7),  # the plain part ends after six steps
        "pictures/adaptation.svg",
    ),
    "finetune by lagrangian": Case("finetune", finetuning("lagrangian"), 10, (2, 7), "pictures/examples.png"),
    "finetune by learned_loss": Case("finetune", finetuning("learned_loss"), 10, (2, 7)),
    "finetune by detfusion": Case("finetune", finetuning("detfusion", 7), 10, (2, 7)),
}


@pytest.fixture(scope="module")
def command_line(tmp_path_factory):
    with CommandLine(tmp_path_factory.mktemp("printed")) as line:
        yield line


def logged(run):
    return sum(path.read_bytes().count(b"\n") for path in run.rglob("history.jsonl"))


def plain(run):
    """The genotype without the time of the network, and without the hash of a config that names folder and workers."""
    genotype = load_genotype(run)
    return replace(genotype, provenance={**genotype.provenance, "latency": None, "config_hash": None})


def assert_same_runs(first, second):
    def files_of(run):
        events = "events.out.tfevents"
        return {path.relative_to(run) for path in run.rglob("*") if path.is_file() and not path.name.startswith(events)}

    assert files_of(first) == files_of(second)
    for file in sorted(files_of(first)):
        if file.name == "checkpoint.pt":
            assert_same(load_checkpoint(first / file), load_checkpoint(second / file), str(file))
        elif file.name == "genotype.yaml":
            assert plain((first / file).parent) == plain((second / file).parent), file
        elif file.name == "report.html":
            assert untimed(first / file) == untimed(second / file), file
        elif file.name not in ANY_FILE_BUT:
            assert (first / file).read_bytes() == (second / file).read_bytes(), file


@pytest.mark.parametrize("name", CASES)
def test_killed_stopped_and_moved_a_run_ends_as_if_nothing_had_happened(name, command_line, tmp_path):
    case, folder = CASES[name], write_networks(tmp_path)
    if case.make(tmp_path, folder).model_dump().get("first_stage"):
        train(tiny_training(folder / "first", folder, train={"steps": 2, "warmup": 1}))
    runs = {place: tmp_path / place / "run" for place in ("whole", "killed", "moved")}

    def command(place, *options, **stopping):
        runs[place].parent.mkdir(exist_ok=True)
        file = write_config(case.make(runs[place], folder))
        return command_line(case.command, "--config", file, *case.options, *options, **stopping)

    code, printed = command("whole")
    assert code == 0, printed
    assert logged(runs["whole"]) == case.steps
    killed, moved = runs["killed"], runs["moved"]
    for place, steps in enumerate(case.kills):

        def reached(steps=steps, place=place):
            return logged(killed) >= steps and (place == 0 or any(killed.rglob("checkpoint.pt")))

        code, printed = command("killed", *["--resume"][:place], until=reached)
        assert code == -signal.SIGKILL, printed
        assert steps <= logged(killed) < case.steps
        assert any(killed.rglob("checkpoint.pt")) == (place > 0)

    moved.parent.mkdir()
    killed.rename(moved)
    for file in folder.glob("first/**/*.*"):  # a refine network keeps a copy
        file.unlink()
    other = ["--set", "data.workers=1", "--set", "data.cache_megabytes=1", "--resume"]
    part = (case.kills[-1] + case.steps) // 2
    code, printed = command("moved", *other, until=lambda: logged(moved) >= part, number=signal.SIGINT)
    assert code == 2, printed
    checkpoints = [load_checkpoint(path)["state"]["step"] for path in moved.rglob("checkpoint.pt")]
    assert part <= sum(checkpoints) == logged(moved)
    assert printed.splitlines()[-1] == f"error: stopped before step {checkpoints[-1]}; go on with --resume"

    if case.concluding:
        code, printed = command("moved", "--resume", until=(moved / case.concluding).exists)
        assert code == -signal.SIGKILL, printed
        assert logged(moved) == case.steps
    for _ in range(2 if name == "search" else 1):  # the second time it has ended already
        code, printed = command("moved", "--resume")
        assert code == 0, printed
        assert_same_runs(runs["whole"], moved)
    code, printed = command("moved", "--resume", "--set", "seed=1")
    assert (code, len(printed.splitlines())) == (2, 1), printed
    assert "seed was 0 and is now 1" in printed
