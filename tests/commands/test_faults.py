"""Damaged and hostile inputs that once ended in a traceback: each ends well, or in one line with exit code 2."""

import os
import re
import resource
import shlex
import shutil
import signal
import stat
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from timfuse.genotypes import CellGenotype, Genotype, save_genotype
from timfuse.runtime.checkpoint import load_checkpoint, save_checkpoint

from .conftest import searching, settings, write_image, write_network, write_pairs

PROGRESS = re.compile(r"[\w &.\-]+: \d+/\d+, |warning: ")
# By name of the folder, what the line says; "" where the command succeeds.
CASES = {
    "ckpt0-search-is-dir": "run/checkpoint.pt is a folder, where a run has a file",
    "data-num-data.batch_size_100000": "training on 100000 crops of 32x32 pixels at a time would need ",
    "data-num-data.crop_100000": "training on 2 crops of 100000x100000 pixels at a time would need ",
    "data-num-data.workers_1000": "data.workers = 1000 must be less than or equal to 128",
    "data-num-train.learning_rate_1e6": "is not finite: nan; the state before it is in t/checkpoint.pt; lower train.le",
    "folder0-run-toolong": "the name is too long; choose a shorter one",
    "folder0-search-config.yaml-nonutf8-resume": "run/config.yaml is no text in UTF-8",
    "folder0-train-hist-bigint-visualize": "the run's history holds no validation yet",
    "folder0-train-hist-deep-visualize": "the run's history holds no validation yet",
    "geno1-s-channels-1e9": "a network of 1000000000 channels would need 36,000,000,000 GB of memory",
    "geno1-s-channels-2e5": "a network of 200000 channels would need 1,440 GB of memory",
    "geno1-s-d-huge": "unknown operator 'dilated_k3_d99999'",
    "names-broken_x_ry_": "the pair x\\ry: ",
    "names3-fuse": "",
    "paths-evaluate-metrics3": "",
    "paths-fuse-first-long": "; check the path",
    "paths-fuse-net-long": ": File name too long",
    "paths-fuse-net-tilde": "there is no such user as a path names after ~",
    "paths-fuse-out-long": ": File name too long",
    "paths-fuse-out-loop": "Symlink loop from",
    "paths-scenes-size": "there is not enough memory for this",
    "paths-search-set-big": "a number must have at most 308 digits",
    "paths-search-set-deep": "write it as key=value",
    "paths-search-set-deepyaml": "nested too deeply; write it flatter",
    "paths-tune-sqlmem": "the storage sqlite:// ends with this process; name a file",
    "perm-adapt-nox": "cannot use perm/nox/m: Permission denied",
    "perm-adapt-run0": "cannot use perm/run0/config.yaml: Permission denied",
    "perm-cfg-nox": "cannot use perm/cfgx/c.yaml: Permission denied",
    "perm-cfg0": "path 'perm/c0.yaml' is not readable; see `",
    "perm-data-nox2": "cannot use perm/nox/x: Permission denied",
    "perm-eval-nox": "cannot use perm/nox/ir: Permission denied",
    "perm-fuse-nox": "cannot use perm/nox/ir: Permission denied",
    "perm-fuse-out-nox": "cannot use perm/nox/o: Permission denied",
    "perm-fuse-out-ro": "cannot write perm/ro/o: permission denied",
    "perm-geno-nox": "cannot use perm/nox/x.yaml/history.jsonl: Permission denied",
    "perm-import0": "path 'perm/net/weights.safetensors' is not readable",
    "perm-net-nox": "cannot use perm/nox/net: Permission denied",
    "perm-ops0": "path 'perm/c0.yaml' is not readable",
    "perm-train-ro": "cannot write perm/ro/x: permission denied",
    "weights0-import-filt": "x.filt is not the binomial 3x3 filter",
    "weights0-import-intkeys": "sd.pth holds no state dict",
    "weights0-import-nested": "sd.pth holds no state dict",
    "weights0-import-pickle": "sd.pth is damaged or holds more than tensors",
    "weights0-int-train": "of another type (first: stem.0.weight is torch.int32 in the file, torch.float32 in the netw",
    "weights0-nan-train": "run/weights.safetensors holds values that are not finite",
    "yaml1-21-tune-text": "no config file fy/a\\x00b",
    "yaml2-177-finetune-guidance.images_x00_": "(fy/c.yaml)",
    "yaml2-236-train-data.batch_size_bytes_train.precision_task_no_": 'data.batch_size = "bytes" must be an integer',
    "yaml2-238-search-search.inner_loss.differences_file_etc_passwd_": "must be a number (fy/c.yaml)",
    "yaml2-239-meta-init-meta.pretrain_": 'meta.pretrain = "~" must be an integer (fy/c.yaml)',
    "yaml2-542-search-text": "nested too deeply; write it flatter",
    "yaml4-126-tune-search.search_u202e_vary.search.space.channels_xxxx": "vary.search.space.channels = ",
    "yaml4-133-train-text": ": File name too long",
}


@pytest.fixture
def line_of(run):
    """A function that runs a command line that may end well or in one line; returns that line or ""."""

    def call(*words):
        code, _, errors = run(*words)
        lines = [line for line in errors.splitlines() if not PROGRESS.match(line)]
        assert (code, len(lines)) in ((0, 0), (2, 1)), errors
        assert all(line.isprintable() and len(line) < 1100 for line in lines)
        return lines[0].removeprefix("error: ") if lines else ""

    return call


@pytest.mark.parametrize("name", CASES)
def test_shared_faults(shared, line_of, name):
    folder = shared / "cases" / "faults" / name
    if not folder.is_dir():
        pytest.skip("the folder of real data has no such case")
    if name.startswith("perm") and os.geteuid() == 0:
        pytest.skip("root may read and write everywhere")
    for path in folder.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, path.name)
    write_network(Path("GENOTYPE"))
    lines = [line for line in Path("command").read_text().splitlines() if line.startswith("timfuse ")]
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        _build_what_is_named(line)
        try:
            assert CASES[name] in (told := line_of(*words))
            assert bool(CASES[name]) == bool(told)
        finally:
            for place in Path("perm").rglob("*") if Path("perm").is_dir() else ():
                place.chmod(stat.S_IRWXU)


def _build_what_is_named(line):
    """Make the files and folders that a command line names beside those of its case."""
    if "pair/" in line or "perm/" in line:
        write_pairs(Path("pair"))
    if "perm/" in line:
        _build_forbidden(Path("perm"))
    if "loop/" in line:
        Path("loop").symlink_to("loop")
    if "fy/c.yaml" in line:
        Path("fy").mkdir()
        shutil.move("c.yaml", "fy/c.yaml")
    if "tune-sqlite-99" in line:
        Path("tune-sqlite-99").mkdir()
        Path("tune-sqlite-99/c.yaml").write_text("extends: tune\n")
    if "data.root=d" in line:
        write_pairs(Path("d"), size=(48, 48))
    if "fn3" in line:
        for side in ("ir", "vis"):
            for stem in ("a\nb", "red\x1b[31m", "x" * 240, "y" * 251, "-rf", " blank ", os.fsdecode(b"na\xefve")):
                write_image(Path("fn3/c", side, f"{stem}.png"))
    if "--resume" in line:
        Path("run").mkdir()
        Path("run/config.yaml").write_bytes(Path("config.yaml").read_bytes() if Path("config.yaml").is_file() else b"")
        if not Path("config.yaml").is_file():
            Path("run/checkpoint.pt").mkdir()
    if Path("history.jsonl").is_file():
        write_network(Path("run"))
        shutil.copy("history.jsonl", "run/history.jsonl")
        Path("run/config.yaml").write_text("stage: train\n")
    if "init=run" in line:
        # The network that the weights are of.
        cells = (CellGenotype("successive", ("dense_k3_d1", "dense_k3_d1")),) * 2
        save_genotype(Genotype("x", "infrared-visible", "fusion", 4, cells, head="envelope"), Path("run/genotype.yaml"))
        shutil.copy("weights.safetensors", "run/weights.safetensors")


def _build_forbidden(root):
    write_network(root / "net")
    for name in ("nox/m", "nox/net", "run0"):
        write_network(root / name)
    write_pairs(root / "nox")
    write_pairs(root / "nox/x")
    shutil.copy(root / "net/genotype.yaml", root / "nox/x.yaml")
    (root / "cfgx").mkdir()
    for name in ("cfgx/c.yaml", "c0.yaml"):
        (root / name).write_text("seed: 0\n")
    (root / "ro").mkdir()
    modes = {"nox": 0o600, "cfgx": 0o600, "run0": 0, "c0.yaml": 0, "net/weights.safetensors": 0, "ro": 0o555}
    for name, mode in modes.items():
        (root / name).chmod(mode)


def test_names_of_all_kinds(run, line_of):
    stems = ("a\nb", "red\x1b[31m", "x" * 240, "y" * 251, "-rf", " blank ", os.fsdecode(b"na\xefve"), "M&<b>'\"")
    for side in ("ir", "vis"):
        for stem in stems:
            write_image(Path("c", side, f"{stem}.png"), size=(48, 48))
    pair = ("--first", "c/ir", "--second", "c/vis")
    assert line_of("fuse", *pair, "-o", "out", "-n", "ivif-fast") == ""
    assert {path.stem for path in Path("out").iterdir()} == set(stems)
    code, output, _ = run("evaluate", *pair, "--fused", "M&<b>'\"=out", "--metrics", "EN", "-o", "tables")
    assert code == 0
    assert "M&<b>'\"" in output
    assert line_of("compare", *pair, "--fused", "M&<b>'\"=out", "-o", "page") == ""
    assert "<b>" not in Path("page/page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (searching('run="a\\0b"'), "a path holds the character NUL"),
        (searching('run="\\udcff"'), "must be in UTF-8"),
        (searching("run=" + "x" * 256), "the name is too long"),
        (searching(".".join("a" * 3000) + "=1"), "write it as key=value"),
        (searching("space.steps=100000"), "must have at most 1000 steps in all cells"),
        (searching("space.channels=1000000000"), "a network of 1000000000 channels would need"),
        (searching("data.crop=100000"), "training on 2 crops of 100000x100000 pixels at a time would need"),
        (searching("data.batch_size=100000000"), "training on 100000000 crops of 16x16 pixels at a time would need"),
        (searching("data.workers=1000"), "must be less than or equal to 128"),
        (searching("data.synthetic_pairs=1000000000"), "must be less than or equal to 100000"),
        (searching("seeds=1000000000"), "must be less than or equal to 1000"),
        (searching("cost.height=1000000000"), "must be less than or equal to 65535"),
        (["latency", "--networks", "1000000000"], "less than or equal to 10000"),
        (["scenes", "-o", "x", "--size", "99999999x99999999"], "there is not enough memory for this"),
    ],
)
def test_giants_and_impossible_names_are_refused_before_anything_is_written(line_of, words, line):
    assert line in line_of(*words)
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("kilobytes", [1, 20, 60])
def test_a_disk_that_is_full_leaves_one_line(line_of, kilobytes):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, limits[1]))
    try:
        line = line_of(*searching("run=run", "space.channels=16"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert line.startswith("cannot write run/")
    assert line.endswith("File too large; choose another folder")
    assert list(Path().rglob("*.tmp")) == []


def _training(*pairs):
    """The words of a tiny training on the pairs in d."""
    short = ("data.crop=32", "data.batch_size=2", "train.steps=1", "train.warmup=0", "train.images=0", "data.root=d")
    return ["train", *settings("genotype=net", "run=t", *short, *pairs)]


def _one_pair():
    write_pairs(Path("d"), 1, (48, 48))


def _raw_counts():
    """Pairs of 16 bits that hold a small part of the range, as thermal cameras save them."""
    write_pairs(Path("d"), 4, (48, 48))
    for path in Path("d").rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) + np.uint16(2900)).astype(np.uint16)).save(path)


def _one_small():
    """One pair that is much smaller than the others."""
    write_pairs(Path("d"), 4, (100, 80))
    for folder in ("ir", "vis"):
        write_image(Path("d", folder, "b.png"), (60, 50))


@pytest.mark.parametrize(
    ("build", "words", "line"),
    [
        (_one_pair, (), "1 pair cannot be split into training and validation; at least 2 are needed"),
        (_raw_counts, (), "images of more than 8 bits hold values from 2900 to 3155, a small part of their range"),
        (_one_small, ("data.crop=52",), "is 60x50, the minimum is 52x52; remove the pair or choose a smaller crop"),
        (_one_small, (), ""),
        (_one_small, ('run="a\\0b"',), "a path holds the character NUL"),
    ],
)
def test_pairs_and_paths_of_a_training(line_of, build, words, line):
    write_network(Path("net"))
    build()
    told = line_of(*_training(*words))
    assert line in told
    assert bool(line) == bool(told)
    assert Path("t/weights.safetensors").exists() != bool(line)


def test_what_a_checkpoint_must_not_hold(run, line_of):
    assert run(*searching("run=run"))[0] == 0
    nans = torch.full((4,), torch.nan)
    whole = load_checkpoint(Path("run/checkpoint.pt"))
    damages = (
        lambda saved: saved["rng"].update(numpy=nans),
        lambda saved: saved["state"].update(step=nans),
        lambda saved: saved["state"].update(step=-1),
        lambda saved: saved["state"].update(step=10**400),
        lambda saved: saved["state"].update(scorer="x"),
        lambda saved: saved["state"]["guards"].update(smoothed="x"),
        lambda saved: saved["state"]["guards"].update(given=[None]),
        lambda saved: saved["state"]["weight_optimizer"]["state"].update({0: nans}),
    )
    for damage in damages:
        state = deepcopy(whole)
        damage(state)
        save_checkpoint(Path("run/checkpoint.pt"), state)
        before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
        line = line_of(*searching("run=run"), "--resume")
        assert line == "the checkpoint in run is of another architecture or program; start anew with --overwrite"
        assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_damaged_histories_and_checkpoints(run, line_of):
    assert run(*searching("run=run"))[0] == 0
    whole = Path("run/history.jsonl").read_text()
    damages = {
        '"probability": 3': "or a file beside it is damaged",
        '"probability": {}': "or a file beside it is damaged",
        '"probability": {"cell 1, step 1": {"residual_k3_d1": "x"}}': "or a file beside it is damaged",
    }
    for damage, told in damages.items():
        Path("run/history.jsonl").write_text(f'{{"step": 0, {damage}}}\n')
        assert told in line_of("visualize", "run")
        assert told in line_of(*searching("run=run"), "--resume")
    Path("run/history.jsonl").write_text(whole + '{"step": 9, "probability": 1' + "0" * 400 + "}\n")
    assert line_of("visualize", "run") == ""
    state = load_checkpoint(Path("run/checkpoint.pt"))
    state["state"]["weight_optimizer"]["state"][0] = torch.tensor(0.0)
    save_checkpoint(Path("run/checkpoint.pt"), state)
    assert line_of(*searching("run=run"), "--resume").endswith("start anew with --overwrite")


def test_a_longer_training_goes_on_with_its_weights(line_of):
    short = settings(
        "data.synthetic_pairs=3", "data.crop=32", "train.validate_every=2", "train.images=0", "train.warmup=0"
    )
    write_network(Path("net"))
    words = ["train", *short, "--set", "genotype=net"]
    assert line_of(*words, "--run", "one", "--steps", "2") == ""
    line = line_of(*words, "--run", "one", "--steps", "3", "--resume")
    assert line.endswith("go on from its weights in another folder, with --set init=one")
    assert line_of(*words, "--run", "two", "--steps", "3", "--set", "init=one") == ""
