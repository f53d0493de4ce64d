"""`timfuse meta-init` and `timfuse adapt` as a user meets them."""

import shutil
from pathlib import Path

import pytest

from timfuse import cli
from timfuse.data import write_pixels
from timfuse.genotypes import load_genotype, save_genotype
from timfuse.operators import build_network
from timfuse.runtime.config import config_to_yaml
from timfuse.runtime.weights import save_weights

from .conftest import blobs, write_pairs

PROGRESS = ("checking image pairs", "meta-init ", "adapting to ")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """An empty current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def run(capsys):
    """A function that runs a command line in this process; returns exit code, output and the lines of errors."""

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        lines = [line for line in printed.err.splitlines() if not line.startswith(PROGRESS)]
        return caught.value.code or 0, printed.out, lines

    return call


@pytest.fixture
def refused(run):
    """A function that runs a command line that must fail with one line; returns that line."""

    def call(*arguments):
        code, output, lines = run(*arguments)
        assert (code, output, len(lines)) == (2, "", 1), lines
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    return call


@pytest.fixture
def initialising(tiny):
    """A function that makes the command of a tiny meta-initialisation with settings."""
    Path("tiny.yaml").write_text(config_to_yaml(tiny()), encoding="utf-8")

    def command(*settings):
        words = (word for setting in ("run=runs/meta-init", *settings) for word in ("--set", setting))
        return ["meta-init", "--config", "tiny.yaml", *words]

    return command


@pytest.fixture
def initialised(run, initialising):
    """The folder of a meta-initialisation."""
    code, _, lines = run(*initialising())
    assert code == 0, lines
    return Path("runs/meta-init")


def test_from_pairs_to_an_initialisation_to_a_network_that_fuses(drawn, run, refused, initialising, folders):
    code, output, _ = run(*initialising())
    assert code == 0
    table = [line.split() for line in output.splitlines()[:4]]
    assert table[0] == ["validation", "loss", "after", "steps", "0", "1", "2"]
    assert [row[0] for row in table[1:]] == ["infrared-visible", "mri-ct", "multi-focus"]
    for path in ("weights.safetensors", "pictures", "history.jsonl"):
        assert f"runs/meta-init/{path}" in output
        assert Path("runs/meta-init", path).exists()
    assert "runs/meta-init holds a run; go on with --resume" in refused(*initialising())
    assert run(*initialising(), "--resume")[1] == output

    adapting = ["adapt", "runs/meta-init", "--task", "mri-ct", "--data", folders / "mri-ct", "--steps", 3, "--pairs", 5]
    code, output, _ = run(*adapting, "--set", "device=cpu")
    assert code == 0
    table = [line.split() for line in output.splitlines()[:3]]
    assert table[0] == ["validation", "loss", "after", "steps", "0", "1", "2", "3"]
    assert [row[:-4] for row in table[1:]] == [["mri-ct"], ["random", "weights,", "Adam"]]
    assert "3 steps on 5 pairs in " in output
    assert Path("runs/adapt/pictures/adaptation.svg").is_file()
    assert "runs/adapt holds a run" in refused(*adapting)
    assert run(*adapting, "--overwrite", "--set", "seed=1")[0] == 0
    assert run(*adapting, "--run", "elsewhere")[0] == 0
    assert run("fuse", "--data", folders / "mri-ct", "--network", "elsewhere", "-o", "fused")[0] == 0
    assert len(list(Path("fused").iterdir())) == 12


def test_drawing_a_run_finished_or_not(drawn, run, refused, initialised):
    shutil.rmtree(initialised / "pictures")
    assert run("visualize", initialised)[0] == 0
    assert {"network.svg", "curves.svg", "curves.png"} <= {path.name for path in (initialised / "pictures").iterdir()}
    shutil.rmtree(initialised / "pictures")
    (initialised / "genotype.yaml").unlink()
    code, output, _ = run("visualize", initialised)
    assert code == 0
    assert output.startswith("runs/meta-init has no genotype yet: drawing its history so far")
    assert {path.name for path in (initialised / "pictures").iterdir()} == {"curves.svg", "curves.png"}
    history = initialised / "history.jsonl"
    history.write_text(history.read_text().splitlines(keepends=True)[0])
    code, _, lines = run("visualize", initialised)
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("error: the run's history holds no validation yet")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["data.support=6", "data.query=5"],
            ["task infrared-visible has 8 training pairs", "data.query = 11", "lower"],
        ),
        (["tasks.mri-tc={}"], ["unknown task 'mri-tc'", "did you mean 'mri-ct'?"]),
        (["meta.algorithm=maml", "inner.optimizer=adamw"], ["maml cannot differentiate", "use sgd or adam"]),
        (["meta.algorithm=anil", "inner.optimizer=adamw"], ["anil cannot differentiate", "use sgd or adam"]),
        (["init=other"], ["other/weights.safetensors: these weights belong to another architecture"]),
        (["tasks.mri-ct.root=two-sizes"], ["the pair 3 has two sizes", "28x28", "28x24", "bring both to one"]),
        (["tasks.mri-ct.root=nowhere"], ["nowhere does not exist", "check the path"]),
        (["tasks.thermal.sources=[xray, proton]"], ["thermal/proton does not exist; check its name"]),
        (["meta.stepz=3"], ["unknown key meta.stepz", "did you mean meta.steps?"]),
        (["device=cuda:99"], ["cuda:99", "not available"]),
    ],
)
def test_bad_meta_initialisations(refused, initialising, genotype, folders, settings, words):
    other = load_genotype("tim_light")
    save_weights(Path("other/weights.safetensors"), build_network(other).state_dict(), {})
    root = write_pairs(Path("two-sizes").absolute(), ["1", "2", "3", "4", "5", "6"], ("mri", "ct"))
    write_pixels(root / "ct" / "3.png", blobs(0)[:24])
    line = refused(*initialising(*(setting.replace("two-sizes", str(root)) for setting in settings)))
    assert all(word in line for word in words), line
    assert not Path("runs").exists()


def test_bad_adaptations(refused, initialised, folders, genotype):
    data = folders / "mri-ct"
    known = ["adapt", initialised, "--data", data, "--task"]
    assert "unknown task 'mri-tc' (did you mean 'mri-ct'?)" in refused(*known, "mri-tc")
    assert "holds no infrared-visible pairs" in refused(*known, "infrared-visible")
    line = refused("adapt", "nowhere", "--data", data, "--task", "mri-ct")
    assert line == "no meta-initialisation 'nowhere': give the folder of a `timfuse meta-init` run, or all-tasks"
    line = refused("adapt", folders, "--data", data, "--task", "mri-ct")
    assert line.endswith("holds no meta-initialisation; give the folder of a `timfuse meta-init` run")
    assert "unknown key pears" in refused(*known, "mri-ct", "--set", "pears=3")
    rates = (initialised / "rates.yaml").read_text()
    for old, new, message in (
        ("head", "heat", "does not name the layers of the network beside it; get both from one run"),
        (": ", ": -", "must hold a positive number for each layer"),
        (": ", ": [", "rates.yaml"),
    ):
        (initialised / "rates.yaml").write_text(rates.replace(old, new))
        assert message in refused(*known, "mri-ct", "-r", f"run-{len(new)}{new[-1].isalpha()}", "--overwrite")
    (initialised / "rates.yaml").write_text(rates)
    save_weights(initialised / "weights.safetensors", build_network(load_genotype("tim_light")).state_dict(), {})
    assert "these weights belong to another architecture" in refused(*known, "mri-ct", "-r", "run", "--overwrite")
    save_genotype(load_genotype("tim_light"), initialised / "genotype.yaml")
    assert "does not name the layers of the network" in refused(*known, "mri-ct", "-r", "run", "--overwrite")
