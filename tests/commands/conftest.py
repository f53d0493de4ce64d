"""The command line as a user meets it: commands run in this process, in an empty folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timfuse import cli
from timfuse.genotypes import CellGenotype, Genotype, save_genotype
from timfuse.operators import build_network
from timfuse.runtime.weights import save_weights

TINY = """
device: cpu
data: {synthetic_pairs: 6, crop: 16, batch_size: 2}
space: {preset: tim, channels: 2, cells: [successive], steps: 1, operators: [residual_k3_d1, spatial_attention_k3]}
search: {steps: 4, warmup: 1, checkpoint_every: 2, inner_loss: search-inner, outer_loss: search-outer}
cost: {height: 16, width: 16}
verify: {candidates: 0}
"""
PROGRESS = (
    *(
        "search ",
        "train ",
        "finetune ",
        "adapting ",
        "fusing: ",
        "aligning: ",
        "scoring",
        "drawing: ",
        "checking ",
        "measuring latency: ",
    ),
    "warning: ",
)


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """An empty current folder with the config of a tiny search, and a cache of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")


@pytest.fixture
def run(capsys):
    """A function that runs a command line in this process; returns exit code, output and errors."""

    def call(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main([str(word) for word in words])
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def refused(run):
    """A function that runs a command line that must fail with one line; returns that line."""

    def call(*words):
        code, output, errors = run(*words)
        lines = [line for line in errors.splitlines() if not line.startswith(PROGRESS)]
        assert code == 2
        assert output == ""
        assert len(lines) == 1, errors
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    return call


def settings(*pairs):
    """The words that set keys of a config."""
    return [word for pair in pairs for word in ("--set", pair)]


def searching(*pairs):
    """The words of a tiny search."""
    return ["search", "--config", "tiny.yaml", *settings(*pairs)]


def write_image(path, size=(24, 20), seed=0):
    """Write a grey image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)).save(path)


def write_pairs(root, count=4, size=(24, 20)):
    """Write readable infrared-visible pairs, named a, b, c, ..."""
    for index, name in enumerate("abcdefgh"[:count]):
        for side, folder in enumerate(("ir", "vis")):
            write_image(root / folder / f"{name}.png", size, seed=2 * index + side)
    return root


def write_methods(*names):
    """Write pairs, and beside them the infrared images as if methods of these names had fused them."""
    root = write_pairs(Path("scenes"), size=(64, 48))
    for name in names:
        shutil.copytree(root / "ir", root / name)
    return [root / name for name in names]


def write_network(folder, **fields):
    """Write a network with fresh weights."""
    known = {"name": "mine", "task": "infrared-visible", "network": "fusion", "channels": 4}
    genotype = Genotype(**(known | fields), cells=(CellGenotype("successive", ("dilated_k3_d1",)),))
    save_genotype(genotype, folder / "genotype.yaml")
    save_weights(folder / "weights.safetensors", build_network(genotype).state_dict(), {})


def unpaired(root):
    """Take the partner of an image away."""
    (root / "ir" / "b.png").unlink()


def damaged(root):
    """Cut an image short."""
    (root / "vis" / "c.png").write_bytes((root / "vis" / "c.png").read_bytes()[:60])


def two_sizes(root):
    """Make the images of a pair differ in size."""
    write_image(root / "vis" / "d.png", (24, 21))


def empty(root):
    """Leave no image of the first source."""
    for path in (root / "ir").iterdir():
        path.unlink()


def nothing(root):
    """Remove the whole folder."""
    shutil.rmtree(root)
