"""The command line as a user meets it: what it prints, what it writes, and one line for every mistake."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import timfuse
from timfuse import cli
from timfuse.data import write_scenes
from timfuse.deploy import shipped_names
from timfuse.downstream import CompactDetector, keep_task_network, load_task_network
from timfuse.genotypes import CellGenotype, Genotype, load_genotype, save_genotype, zoo_names
from timfuse.objectives.metrics import FIELD_METRICS
from timfuse.operators import build_network
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.errors import UserError
from timfuse.runtime.weights import load_into, save_weights
from timfuse.search import search_recipe

REFERENCE = Path(__file__).parent / "operators" / "reference"
TINY = """
device: cpu
data: {synthetic_pairs: 6, crop: 16, batch_size: 2}
space: {channels: 2, cells: [successive], steps: 1, operators: [residual_k3_d1, spatial_attention_k3]}
search: {steps: 4, warmup: 1, checkpoint_every: 2}
cost: {height: 16, width: 16}
"""
OPERATORS = """
from torch import nn
from timfuse.operators import register_operator

@register_operator("blur", kernels=(3, 5))
def blur(channels: int, kernel: int) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
"""
TRAINING = """
device: cpu
data: {synthetic_pairs: 3, crop: 16, batch_size: 2}
train: {steps: 3, warmup: 1, validate_every: 2}
"""
FINETUNING = """
device: cpu
run: tuned
init: net
data: {root: scenes, crop: 32, batch_size: 2}
task: {width: 8}
guidance: {strategy: lagrangian, tolerance: 0.25}
train: {steps: 2, warmup: 1, images: 1}
"""
PROGRESS = (
    "searching ",
    "fusing: ",
    "training ",
    "finetuning ",
    "checking image pairs: ",
    "checking labelled pairs: ",
    "checking fused images: ",
    "measuring latency: ",
    "warning: ",
    "scoring: ",
    "drawing: ",
)


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """An empty current folder, a cache of its own, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command line in this process; returns exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["timfuse", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def refused(run):
    """A function that runs a command line that must fail with one line; returns that line."""

    def call(*arguments):
        code, output, errors = run(*arguments)
        lines = [line for line in errors.splitlines() if not line.startswith(PROGRESS)]
        assert code == 2
        assert output == ""
        assert len(lines) == 1, errors
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    return call


def searching(*settings):
    return ["search", "--config", "tiny.yaml", *(word for setting in settings for word in ("--set", setting))]


def pairs(root, count=4, size=(24, 20)):
    """Write readable pairs, named a, b, c, ..."""
    generator = np.random.default_rng(0)
    for folder in ("ir", "vis"):
        (root / folder).mkdir(parents=True)
        for name in "abcdefgh"[:count]:
            Image.fromarray(generator.integers(0, 256, size[::-1], dtype=np.uint8)).save(root / folder / f"{name}.png")
    return root


def nothing_written():
    return not Path("runs").exists()


def test_a_search_from_pairs_to_a_genotype(run):
    pairs(Path("pairs"))
    code, output, _ = run(*searching("data.root=pairs", "run=found"))
    assert code == 0
    genotype = load_genotype(Path("found"))
    assert output.splitlines()[0] == f"cell 1 (successive): {genotype.cells[0].operators[0]}"
    for path in ("found/genotype.yaml", "found/pictures", "found/history.jsonl"):
        assert path in output
        assert Path(path).exists()
    load_into(build_network(genotype), Path("found/weights.safetensors"))
    assert genotype.provenance["data"]["root"] == "pairs"


def test_a_search_under_a_budget(run, refused, monkeypatch):
    words = searching("run=found", "space.operators=[residual_k3_d1, spatial_attention_k3]")
    code, output, _ = run(*words, "--budget", "1 Mparams")
    assert code == 0
    assert output.splitlines()[-1].startswith("budget    1 Mparams: predicted ")
    assert " params, counted " in output.splitlines()[-1]
    assert load_genotype(Path("found")).provenance["budget"]["met"] is True
    line = refused(*words, "--budget", "many", "--overwrite")
    assert line.startswith(
        'cost.budget = "many" must be a number above 0 with its unit, like 10ms, 5GFLOPs or 50kparams'
    )
    line = refused(*words, "--budget", "10 params", "--overwrite")
    assert line.startswith("cost.budget = 10 params cannot be met: the cheapest network of this space costs ")
    assert load_genotype(Path("found")).provenance["budget"]["asked"] == "1 Mparams"
    times = iter([1.0])  # of the check before the search
    monkeypatch.setattr("timfuse.cost.DeploymentTarget.cost", lambda *arguments: next(times, 1001.0))
    code, output, errors = run(*words, "--budget", "1s", "--overwrite")
    assert code == 2
    assert "measured 1001 ms" in output
    line = errors.splitlines()[-1]
    assert line.startswith("error: the network that was found takes 1001 ms, 1 ms above cost.budget = 1s; even space.")
    assert load_genotype(Path("found")).provenance["budget"]["met"] is False
    assert Path("found/weights.safetensors").is_file()


def test_predicted_against_measured_latency(run, refused):
    code, output, errors = run("latency", "--config", "tiny.yaml", "--networks", "3")
    assert code == 0
    assert "measuring latency: " in errors
    lines = output.splitlines()
    assert lines[0].split() == ["cell", "1", "(successive)", "predicted", "ms", "measured", "ms", "error"]
    assert lines[4].startswith("rank correlation ")
    table = Path(lines[5].removeprefix("table     "))
    before = table.read_bytes()
    assert run("latency", "--config", "tiny.yaml", "--networks", "2")[0] == 0
    assert table.read_bytes() == before
    assert run("latency", "--config", "tiny.yaml", "--networks", "2", "--fresh")[0] == 0
    assert table.read_bytes() != before
    table.write_text("device: abacus\nmilliseconds: {}\n", encoding="utf-8")
    line = refused("latency", "--config", "tiny.yaml")
    assert line.startswith(f"{table} was measured on abacus, not on ")


def test_a_search_by_detection_and_back_by_fusion(run, refused):
    words = searching("run=found", "downstream.width=8")
    code, output, _ = run(*words, "--outer-loss", "detection")
    assert code == 0
    assert "network   found/task, for detection" in output
    assert load_genotype(Path("found")).provenance["outer_loss"]["network"] == "compact"
    assert load_task_network(Path("found")).width == 8
    line = refused(*words, "--outer-loss", "fusion", "--resume")
    assert line.startswith("cannot resume found: downstream.kind was detection and is now None")
    assert run(*words, "--outer-loss", "fusion", "--overwrite")[0] == 0
    assert not Path("found/task").exists()
    assert "outer_loss" not in load_genotype(Path("found")).provenance
    line = refused(*searching("run=new"), "--outer-loss", "detecton")
    assert line.startswith("downstream.kind = \"detecton\" must be 'detection' or 'segmentation'")
    pairs(Path("pairs"))
    line = refused(*searching("run=new", "data.root=pairs"), "--outer-loss", "detection")
    assert line == "pairs has no labels for detection: give boxes/NAME.txt and classes.txt"
    assert not Path("new").exists()


def test_a_search_on_operators_of_ones_own_with_two_seeds(run, refused, registrations):
    Path("mine.py").write_text(OPERATORS, encoding="utf-8")
    own = ["--operators", "mine.py"]
    search = searching("space.operators=[blur_k3, blur_k5]", "run=mine")
    assert "an operator of one's own needs --operators FILE" in refused(*search)
    assert not Path("mine").exists()
    code, output, _ = run(*own, *search, "--seeds", 2)
    assert code == 0
    assert "mean ± std" in output
    assert "cell 1 step 1: blur_k" in output
    assert load_genotype("mine").provenance["operators"]["blur"]["file"] == "mine.py"
    assert load_genotype("mine").provenance["seeds"]["count"] == 2
    pairs(Path("pairs"), count=1)
    assert run(*own, "fuse", "--first", "pairs/ir", "--second", "pairs/vis", "-o", "fused", "-n", "mine")[0] == 0
    assert Path("fused/a.png").is_file()


def test_files_of_operators_with_mistakes(run, refused, registrations):
    assert refused("--operators", "none.py", "genotypes").startswith("cannot read none.py: No such file")
    Path("mine.py").write_text("x = 1\ny = 1 / 0\n", encoding="utf-8")
    assert refused("--operators", "mine.py", "genotypes") == "mine.py, line 2: ZeroDivisionError: division by zero"
    with pytest.raises(UserError) as caught:
        run("--debug", "--operators", "mine.py", "genotypes")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_training_from_a_search_to_a_table_of_scores(run, refused):
    Path("training.yaml").write_text(TRAINING, encoding="utf-8")
    assert run(*searching("run=found"))[0] == 0
    command = [
        "train",
        "--config",
        "training.yaml",
        "--set",
        "genotype=found",
        "--set",
        "init=found",
        "--set",
        "run=it",
    ]
    code, output, errors = run(*command)
    assert code == 0
    assert "validated: loss " in errors
    table = [line.split() for line in output.splitlines()[:4]]
    assert table[0] == ["validation", "method", "loss", "MI", "VIF", "Qabf", "SCD", "SSIM", "EN", "SD"]
    assert [row[:2] for row in table[1:]] == [["mean", name] for name in ("best", "average", "maximum")]
    assert max(map(len, output.splitlines()[:4])) <= 80
    for path in ("it/weights.safetensors", "it/pictures", "it/history.jsonl"):
        assert path in output
        assert Path(path).exists()
    assert "it holds a run; go on with --resume" in refused(*command)
    assert run(*command, "--resume")[1] == output
    curves = Path("it/pictures/curves.svg").read_bytes()
    assert b">maximum<" in curves
    shutil.rmtree("it/pictures")
    assert run("visualize", "it")[0] == 0
    assert {"network.svg", "curves.svg", "curves.png"} <= {path.name for path in Path("it/pictures").iterdir()}
    assert Path("it/pictures/curves.svg").read_bytes() == curves
    Path("it/history.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    assert "holds no validation yet" in refused("visualize", "it")


def unpaired(root):
    (root / "ir" / "b.png").unlink()


def damaged(root):
    (root / "vis" / "c.png").write_bytes((root / "vis" / "c.png").read_bytes()[:60])


def text_as_image(root):
    (root / "vis" / "c.png").write_text("not an image")


def two_sizes(root):
    Image.new("L", (24, 21)).save(root / "vis" / "d.png")


def two_pixels(root):
    for folder in ("ir", "vis"):
        Image.new("L", (2, 1)).save(root / folder / "a.png")


def empty(root):
    for path in (root / "ir").iterdir():
        path.unlink()


def no_folder(root):
    shutil.rmtree(root / "vis")


def nothing(root):
    shutil.rmtree(root)


def too_few(root):
    for name in ("a", "b"):
        for folder in ("ir", "vis"):
            (root / folder / f"{name}.png").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unpaired, ["vis/b.png", "without a partner", "add the partners or remove them"]),
        (damaged, ["cannot read the image pairs/vis/c.png", "replace or remove it"]),
        (text_as_image, ["pairs/vis/c.png is empty, damaged or no image", "replace or remove it"]),
        (two_sizes, ["pairs/ir/d.png is 24x20", "pairs/vis/d.png is 24x21", "bring both to one"]),
        (two_pixels, ["pairs/ir/a.png is 2x1", "minimum is 16x16", "smaller crop"]),
        (empty, ["pairs holds no infrared-visible pairs", "found vis/NAME alone"]),
        (no_folder, ["pairs holds no infrared-visible pairs", "looked for ir/NAME + vis/NAME"]),
        (nothing, ["the data folder pairs does not exist", "check the path"]),
        (too_few, ["2 pairs cannot be split into three parts", "at least 3"]),
    ],
)
def test_bad_pairs(refused, damage, words):
    damage(pairs(Path("pairs")))
    line = refused(*searching("data.root=pairs"))
    assert all(word in line for word in words), line
    assert nothing_written()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["search.outer_loss.fidelity=1"], ["data.crop = 16 is too small for this loss", "choose a larger one"]),
        (["search.stepz=3"], ["unknown key search.stepz", "did you mean search.steps?"]),
        (["search.steps=many"], ["search.steps", '"many"', "must be an integer"]),
        (["search.steps"], ["--set search.steps", "write it as key=value"]),
        (["search.steps=["], ["--set search.steps=[", "not valid YAML"]),
        (["space.operators=[residual_k3_d1, convolution]"], ["space.operators[1]", "unknown operator 'convolution'"]),
        (["search.estimator_options.clips=3"], ["clips", "gauss_newton has no such setting", "epsilon, clip"]),
        (["search.estimator_options.clip=-3"], ["search.estimator_options.clip = -3 must be"]),
        (["search.warmup=4"], ["must leave steps for the architecture"]),
        (
            ["cost.budget=3"],
            ["cost.budget = 3 must be a number above 0 with its unit, like 10ms, 5GFLOPs or 50kparams"],
        ),
        (["device=cuda:99"], ["cuda:99", "not available"]),
        (["device=abacus"], ["unknown device abacus", "cpu"]),
        (["run=tiny.yaml"], ["tiny.yaml", "is a file, not a folder"]),
        (["run=."], ["has files in it but no run", "choose another folder"]),
    ],
)
def test_bad_settings(refused, settings, words):
    line = refused(*searching(*settings))
    assert all(word in line for word in words), line
    assert nothing_written()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no config file other.yaml", "search-demo"]),
        ("search: {stepz: 3}\n", ["unknown key search.stepz (other.yaml)", "did you mean search.steps?"]),
        ("search: [1]\n", ["search = [1] must be a mapping", "other.yaml"]),
        ("search: {steps: 3\n", ["other.yaml:2: not valid YAML"]),
        ("space: {operators: [identity, identity]}\n", ["space.operators[1]: identity is listed twice"]),
        ("extends: gone.yaml\n", ["other.yaml: extends = gone.yaml", "no config file gone.yaml"]),
        (b"\xff\xfe\xfa", ["other.yaml: not a text file"]),
    ],
)
def test_bad_config_files(refused, content, words):
    if content is not None:
        Path("other.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused("search", "--config", "other.yaml")
    assert all(word in line for word in words), line
    assert nothing_written()


def test_a_folder_with_a_run_is_kept_unless_asked(run, refused):
    assert run(*searching("run=run"))[0] == 0
    before = Path("run/genotype.yaml").read_bytes()
    line = refused(*searching("run=run"))
    assert "run holds a run; go on with --resume, replace it with --overwrite" in line
    line = refused(*searching("run=run", "search.steps=5"), "--resume")
    assert "cannot resume run: search.steps was 4 and is now 5" in line
    assert "exclude each other" in refused(*searching("run=run"), "--resume", "--overwrite")
    assert Path("run/genotype.yaml").read_bytes() == before
    assert run(*searching("run=run"), "--resume")[0] == 0
    assert run(*searching("run=run", "seed=1"), "--overwrite")[0] == 0
    assert load_genotype(Path("run")).provenance["seed"] == 1


def test_a_checkpoint_of_another_architecture(run, refused):
    assert run(*searching("run=two"))[0] == 0
    assert run(*searching("run=four", "space.channels=4"))[0] == 0
    shutil.copy("two/checkpoint.pt", "four/checkpoint.pt")
    line = refused(*searching("run=four", "space.channels=4"), "--resume")
    assert "the checkpoint in four is of another architecture or program; start anew with --overwrite" in line
    Path("four/checkpoint.pt").write_bytes(b"nonsense")
    line = refused(*searching("run=four", "space.channels=4"), "--resume")
    assert "four/checkpoint.pt is damaged or not a checkpoint" in line


@pytest.mark.parametrize(
    "name", ["config.yaml", "history.jsonl", "checkpoint.pt", "weights.safetensors", "network.png", "genotype.yaml"]
)
def test_a_full_disk(refused, monkeypatch, name):
    rename = os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    line = refused(*searching("run=run"))
    assert f"{name}: the disk is full; free some space or choose another folder" in line
    assert not Path("run/genotype.yaml").exists()
    assert [path.name for path in Path("run").rglob("*.tmp")] == []


def test_a_loss_that_is_not_finite(refused, monkeypatch):
    losses = []

    class Loss(search_recipe.FusionLoss):
        def __call__(self, *images):
            losses.append(1)
            return super().__call__(*images) * (math.nan if len(losses) == 4 else 1)

    monkeypatch.setattr(search_recipe, "FusionLoss", Loss)
    line = refused(*searching("run=run"))  # one loss in the warm-up step, then two in each
    assert line.startswith("step 2: the outer loss F is not finite: nan; the state before it is in run/checkpoint.pt")
    assert "lower search.weight_learning_rate" in line
    assert load_checkpoint(Path("run/checkpoint.pt"))["step"] == 2
    assert not Path("run/genotype.yaml").exists()


def test_a_loss_that_becomes_infinite_by_itself(refused):
    line = refused(*searching("run=run", "search.weight_learning_rate=1e30"))
    assert line.startswith("step 1: the ")
    assert " is not finite: " in line


def test_a_traceback_where_it_is_asked_for():
    command = [sys.executable, "-m", "timfuse"]
    plain = subprocess.run([*command, *searching("data.root=gone")], capture_output=True, text=True, check=False)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr == "error: the data folder gone does not exist; check the path\n"
    debug = subprocess.run(
        [*command, "--debug", *searching("data.root=gone")], capture_output=True, text=True, check=False
    )
    assert debug.returncode != 0
    assert debug.stderr.startswith("Traceback (most recent call last):")
    assert debug.stderr.rstrip().endswith("UserError: the data folder gone does not exist; check the path")


def test_version_and_help(run):
    assert run("--version") == (0, f"timfuse {timfuse.__version__}\n", "")
    code, output, _ = run("--help")
    assert code == 0
    assert all(command in output for command in ("search", "visualize", "genotypes", "import"))
    code, _, errors = run("search")
    assert code == 2
    assert "Missing option '--config'" in errors


def test_the_zoo_fits_on_80_columns(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, output, _ = run("genotypes")
    lines = output.splitlines()
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert "…" not in output
    for name in zoo_names():
        genotype = load_genotype(name)
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.split()[1:3] == [genotype.task, genotype.network]
    parameters = {line.split()[0]: line.split()[3] for line in lines if line.startswith("tim")}
    assert [parameters[name] for name in ("tim", "tim_light", "tim_ivif")] == ["994,917", "127,358", "237,308"]


def test_drawing_what_a_user_names(run, refused):
    names = {"network", "cell_1", "cell_2"}
    forms = {"svg", "png", "dot"}
    code, output, _ = run("visualize", "tim_light")
    assert code == 0
    drawn = {f"tim_light-pictures/{name}.{form}" for name in names for form in forms}
    assert drawn <= set(output.splitlines())
    assert all(Path(path).stat().st_size for path in drawn)
    Path("deep").mkdir()
    save_genotype(load_genotype("tim"), Path("deep/mine.yaml"))
    assert run("visualize", "deep/mine.yaml")[0] == 0
    assert Path("deep/mine-pictures/network.svg").is_file()
    assert run("visualize", "deep/mine.yaml", "--output", "elsewhere/pictures")[0] == 0
    assert Path("elsewhere/pictures/cell_2.png").is_file()
    assert "is a file, not a folder" in refused("visualize", "tim", "--output", "tiny.yaml")


def test_drawing_a_run_finished_or_not(run, refused):
    assert run(*searching("run=run"))[0] == 0
    shutil.rmtree("run/pictures")
    assert run("visualize", "run")[0] == 0
    assert {"network.svg", "cell_1.png", "probabilities.svg"} <= {path.name for path in Path("run/pictures").iterdir()}
    shutil.rmtree("run/pictures")
    Path("run/genotype.yaml").unlink()
    code, output, _ = run("visualize", "run")
    assert code == 0
    assert output.startswith("run has no genotype yet: drawing its history so far")
    assert {path.name for path in Path("run/pictures").iterdir()} == {"probabilities.svg", "probabilities.png"}
    Path("run/history.jsonl").write_text("")
    code, _, errors = run("visualize", "run")
    assert code == 2
    assert errors.startswith("error: the run's history holds no operator probabilities yet")
    Path("run/history.jsonl").unlink()
    assert "run has no genotype.yaml" in refused("visualize", "run")


GENOTYPE = """
schema: 1
name: mine
task: infrared-visible
network: fusion
channels: 4
cells: [{kind: successive, operators: [residual_k3_d1]}]
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("residual_k3_d1", "residual_k4_d1", ["mine.yaml: cells[0].operators[0]", "residual_k4_d1", "did you mean"]),
        ("schema: 1", "schema: 2", ["mine.yaml: schema 2 was written by a newer timfuse", "upgrade timfuse"]),
        ("channels: 4", "channels: 3", ["mine.yaml: channels must be an even whole number"]),
        ("channels: 4", "chanels: 4", ["mine.yaml: unknown key chanels", "did you mean 'channels'"]),
        ("successive", "parallel", ["mine.yaml: cells[0].kind", "successive"]),
        ("name: mine", "name: !!python/object:os.system x", ["mine.yaml:3: not valid YAML"]),
    ],
)
def test_bad_genotypes(refused, old, new, words):
    Path("mine.yaml").write_text(GENOTYPE.replace(old, new), encoding="utf-8")
    for command in (["visualize", "mine.yaml"], ["import", "x.pt", "-g", "mine.yaml", "-o", "out"]):
        line = refused(*command)
        assert all(word in line for word in words), line
    assert sorted(path.name for path in Path().iterdir()) == ["mine.yaml", "tiny.yaml"]


def test_an_unknown_genotype(refused):
    line = refused("visualize", "tim_lihgt")
    assert "no genotype 'tim_lihgt' (did you mean 'tim_light'?)" in line


PUBLISHED = {
    "stage1_main": "tim",
    "stage1_light": "tim_light",
    "stage2_ivif": "tim_ivif",
    "stage2_medical": "tim_mri_pet",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_importing_published_weights(run, name):
    index = json.loads((REFERENCE / "index.json").read_text(encoding="utf-8"))
    genotype = replace(load_genotype(PUBLISHED[name]), channels=index["channels"])
    save_genotype(genotype, Path("narrow.yaml"))
    code, output, _ = run("import", REFERENCE / f"{name}.pt", "--genotype", "narrow.yaml", "--output", "imported")
    assert code == 0
    assert output == f"{index['nets'][name]['parameters']:,} parameters in imported/weights.safetensors\n"
    assert load_genotype(Path("imported")) == genotype
    network = build_network(load_genotype(Path("imported"))).eval()
    load_into(network, Path("imported/weights.safetensors"))
    with np.load(REFERENCE / "expected.npz") as arrays, torch.no_grad():
        outputs = network(*(torch.from_numpy(arrays[source]) for source in index["nets"][name]["inputs"]))
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        for number, image in enumerate(outputs):
            expected = torch.from_numpy(arrays[f"{name}/output{number}"])
            torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)


def test_importing_what_does_not_fit(refused):
    main = REFERENCE / "stage1_main.pt"
    line = refused("import", main, "-g", "tim_ivif", "-o", "out")
    assert str(main) in line
    assert "belong to another genotype" in line
    line = refused("import", main, "-g", "tim", "-o", "out")
    assert "check the genotype and its number of channels" in line
    assert "cannot read gone.pt" in refused("import", "gone.pt", "-g", "tim", "-o", "out")
    assert "tiny.yaml is damaged or holds more than tensors" in refused("import", "tiny.yaml", "-g", "tim", "-o", "out")
    torch.save({"a": print}, "program.pt")
    assert "program.pt is damaged or holds more than tensors" in refused("import", "program.pt", "-g", "tim", "-o", "o")
    torch.save([1, 2], "list.pt")
    assert "list.pt holds no state dict" in refused("import", "list.pt", "-g", "tim", "-o", "out")
    assert not Path("out").exists()


def fused(*names):
    """Write pairs, and beside them the infrared images as if methods of these names had fused them."""
    root = pairs(Path("scenes"), size=(64, 48))
    for name in names:
        shutil.copytree(root / "ir", root / name)
    return ["--first", root / "ir", "--second", root / "vis"], [root / name for name in names]


def test_evaluating_methods(run):
    sources, (a, b) = fused("a", "b")
    code, listed, _ = run("evaluate", *sources, "--fused", a, b, "--output", "scores")
    assert code == 0
    rows = [line.split() for line in listed.splitlines()]
    assert [row[0] for row in rows[1:7]] == ["a", "b", "average", "maximum", "copy_first", "copy_second"]
    assert rows[0][1:] == [*(f"{name}↑" for name in FIELD_METRICS), "rank"]
    assert rows[1][1:] == rows[2][1:] == rows[5][1:]  # all three are the first source
    assert [Path(line).name for line in listed.splitlines()[-4:]] == [
        "metrics.csv",
        "summary.csv",
        "table.md",
        "table.tex",
    ]
    assert Path("scores/metrics.csv").read_text().count("\n") == 1 + 6 * 4
    code, repeated, _ = run("evaluate", *sources, "--fused", a, "--fused", b)
    assert repeated.splitlines() == listed.splitlines()[:-4]
    code, output, _ = run("evaluate", *sources, "--fused", f"net={a}", "--no-trivial", "--metrics", "MI, Qcv")
    assert [line.split()[0] for line in output.splitlines()[:-1]] == ["method", "net"]
    assert output.split()[1:3] == ["MI↑", "Qcv↓"]


def test_evaluating_what_cannot_be_scored(refused):
    sources, (a, b) = fused("a", "b")
    assert "no metric MII; choose from EN, " in refused("evaluate", *sources, "--fused", a, "--metrics", "EN,MII")
    assert "two methods are called a" in refused("evaluate", *sources, "--fused", a, f"a={b}")
    Path("file").touch()
    assert "cannot write file" in refused("evaluate", *sources, "--fused", a, "--output", "file")
    Image.new("L", (9, 8)).save(a / "c.png")
    line = refused("evaluate", *sources, "--fused", a, b)
    assert f"scenes/ir/c.png is 64x48, {a / 'c.png'} is 9x8" in line
    (b / "d.png").unlink()
    line = refused("evaluate", *sources, "--fused", a, b)
    assert f"{b} lacks the fused images of 1 of 4 pairs (d)" in line


def test_comparing_methods(run, refused):
    sources, (a, b) = fused("a", "b")
    code, output, _ = run("compare", *sources, "--fused", a, b, "--output", "seen", "--limit", 2)
    assert code == 0
    assert output.split() == ["seen/sheet.png", "seen/page.html"]
    code, output, _ = run(
        "compare", *sources, "--fused", a, "-o", "one.png", "--names", "b,d", "--zoom", "1,2,8,6", "--zoom", "9,9,8,6"
    )
    assert code == 0
    assert output.split() == ["one.png"]
    assert Image.open("one.png").width < Image.open("seen/sheet.png").width
    assert "no pair is called x" in refused("compare", *sources, "--fused", a, "-o", "o", "--names", "a,x")
    assert "leaves a, which is 64x48" in refused("compare", *sources, "--fused", a, "-o", "o", "--zoom", "60,0,8,6")
    assert "1,2,3 is no region" in refused("compare", *sources, "--fused", a, "-o", "o", "--zoom", "1,2,3")


def network(folder):
    """Write a network with fresh weights."""
    genotype = Genotype("mine", "infrared-visible", "fusion", 4, (CellGenotype("successive", ("dilated_k3_d1",)),))
    save_genotype(genotype, folder / "genotype.yaml")
    save_weights(folder / "weights.safetensors", build_network(genotype).state_dict(), {})


def finetuning(*settings):
    """Write labelled pairs, a network and a config, and adapt the network to the pairs."""
    write_scenes(Path("scenes"), 4, height=48, width=64, seed=0)
    network(Path("net"))
    Path("finetuning.yaml").write_text(FINETUNING, encoding="utf-8")
    return ["finetune", "--config", "finetuning.yaml", *(word for setting in settings for word in ("-s", setting))]


def test_finetuning_for_a_task(run, refused):
    pytest.importorskip("faster_coco_eval")
    command = finetuning()
    code, output, errors = run(*command)
    assert code == 0, errors
    lines = output.splitlines()
    provenance = load_genotype(Path("tuned")).provenance
    metrics = provenance["metrics"]
    names = ["loss", "AP50", "AP75", "mAP", "AP50 person", "AP50 bicycle", "AP50 car"]
    assert [line[:18].strip() for line in lines[:8]] == [*names, "promise"]
    assert lines[0].split() == ["loss", f"{metrics['loss']:.4f},", "before", f"{provenance['fusion_loss_before']:.4f}"]
    assert lines[7].split() == ["promise", "kept:", "25%"]
    assert "of step 1" in lines[8]
    for path in ("tuned/weights.safetensors", "tuned/task", "tuned/pictures", "tuned/history.jsonl"):
        assert path in output
        assert Path(path).exists()
    assert load_task_network(Path("tuned")).width == 8
    assert "tuned holds a run; go on with --resume" in refused(*command)
    assert run(*command, "--resume")[1] == output
    curves = Path("tuned/pictures/curves.svg").read_bytes()
    assert b">promised excess<" in curves
    shutil.rmtree("tuned/pictures")
    code, output, _ = run("visualize", "tuned")
    assert code == 0
    assert {"tuned/pictures/network.svg", "tuned/pictures/curves.svg"} <= set(output.splitlines())
    assert Path("tuned/pictures/curves.svg").read_bytes() == curves
    Path("tuned/genotype.yaml").unlink()
    assert run("visualize", "tuned")[1].splitlines()[1:] == ["tuned/pictures/curves.svg", "tuned/pictures/curves.png"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["guidance.strategy=lagrange"], ["guidance.strategy", "must be 'frozen', 'joint', 'lagrangian'"]),
        (["guidance.strategy=learned_loss", "loss={intensity: 0, ssim: 0}"], ["set one of them above 0"]),
        (["guidance.strategy=learned_loss", "guidance.estimator=first_order"], ["choose gauss_newton"]),
        (["guidance.strategy=detfusion", "task.kind=segmentation"], ["detfusion is guided by detectors"]),
        (["init=null"], ["give either init", "or genotype"]),
        (["init=null", "genotype=tim_ivif"], ["tim_ivif is a refine network"]),
        (["data.root=pairs"], ["pairs has no labels for detection: give boxes/NAME.txt and classes.txt"]),
        (["data.crop=32", "data.batch_size=1"], ["data.batch_size above 1 or data.crop above 32"]),
    ],
)
def test_bad_requests_to_finetune(refused, settings, words):
    command = finetuning(*settings)
    pairs(Path("pairs"), size=(64, 48))
    line = refused(*command)
    assert all(word in line for word in words), line
    assert not Path("tuned").exists()


def test_scoring_what_fused_images_are_good_for(run, refused):
    pytest.importorskip("faster_coco_eval")
    assert run(*finetuning("guidance.strategy=joint", "train.validate_every=2"))[0] == 0
    command = ["evaluate-task", "tuned", "--data", "scenes", "--fused", "mine=scenes/vis", "-o", "table"]
    code, output, errors = run(*command)
    assert code == 0, errors
    lines = output.splitlines()
    assert " ".join(lines[0].split()) == "method AP50 AP75 mAP AP50 person AP50 bicycle AP50 car loss"
    assert [line.split()[0] for line in lines[1:6]] == ["infrared", "visible", "average", "mine", "tuned"]
    assert lines[2].split()[1:] == lines[4].split()[1:]
    assert lines[6:] == ["table/scores.csv", "table/table.md"]
    assert Path("table/table.md").read_text().splitlines()[6].startswith("| tuned | 1 | ")
    assert len(Path("table/scores.csv").read_text().splitlines()) == 6
    lines = run("evaluate-task", "tuned", "--no-baselines", "-o", "alone")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["method", "tuned", "alone/scores.csv", "alone/table.md"]
    line = refused("evaluate-task", "nowhere", "-o", "new")
    assert line == "nowhere holds no run; give the folder of a `timfuse finetune` run"
    assert "net holds no run" in refused("evaluate-task", "net", "-o", "new")
    assert "two methods are called vis" in refused(*command, "--fused", "scenes/vis", "--fused", "vis=scenes/ir")
    assert "visible is what the table calls a source" in refused(*command, "--fused", "visible=scenes/vis")
    assert "the data folder far does not exist" in refused("evaluate-task", "tuned", "--data", "far", "-o", "new")
    pairs(Path("pairs"), size=(64, 48))
    assert "pairs has no labels for detection" in refused("evaluate-task", "tuned", "--data", "pairs", "-o", "new")


def fusing(*options, output="out"):
    return ["fuse", "--first", "pairs/ir", "--second", "pairs/vis", "--network", "net", "-o", output, *options]


def test_fusing_two_folders(run, refused):
    network(Path("net"))
    pairs(Path("pairs"))
    code, output, errors = run(*fusing())
    assert code == 0
    assert output.startswith("4 fused with mine into out, ")
    assert output.endswith(" images per second\n")
    assert errors.splitlines()[-1].startswith("fusing: 4/4, ")
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png", "c.png", "d.png"]
    assert Image.open("out/a.png").size == (24, 20)
    assert "out holds 4 of 4 fused images already; go on with --resume" in refused(*fusing())
    assert run(*fusing("--resume"))[:2] == (0, "0 fused with mine into out; 4 were there already\n")
    assert run(*fusing("--overwrite"))[1].startswith("4 fused")
    single = ["--first", "pairs/ir/a.png", "--second", "pairs/vis/b.png", "-n", "net"]
    assert run("fuse", *single, "-o", "one.tif")[0] == 0
    assert Image.open("one.tif").size == (24, 20)


def test_fusing_with_the_labels_that_are_found(run, refused):
    network(Path("net"))
    pairs(Path("pairs"))
    labels = ["--labels", "found"]
    hint = "has no task network: name the folder of a `timfuse finetune` run"
    assert refused(*fusing(*labels)) == f"net {hint}"
    assert refused(*fusing(*labels, "--network", "ivif")) == f"ivif {hint}"
    assert not Path("out").exists()
    keep_task_network(CompactDetector(("person", "car"), 8), Path("net"))
    code, output, _ = run(*fusing(*labels))
    assert code == 0
    assert output.splitlines()[1:] == ["what net finds in them is in found"]
    assert Path("found/classes.txt").read_text() == "person\ncar\n"
    for folder, suffix in (("out", "png"), ("found/boxes", "txt"), ("found/pictures", "png")):
        assert sorted(path.name for path in Path(folder).iterdir()) == [f"{name}.{suffix}" for name in "abcd"]
    assert "out holds 4 of 4 fused images already" in refused(*fusing(*labels))
    Path("found/boxes/c.txt").unlink()
    assert run(*fusing(*labels, "--resume"))[1].startswith("1 fused with mine into out")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unpaired, ["do not pair by name", "pairs/vis has 1 without a partner (b.png)"]),
        (damaged, ["cannot read the image pairs/vis/c.png", "replace or remove it"]),
        (two_sizes, ["the pair d has two sizes", "pairs/vis/d.png is 24x21", "--resize second"]),
        (empty, ["pairs/ir holds no image"]),
        (nothing, ["pairs/ir"]),
    ],
)
def test_bad_pairs_to_fuse(refused, damage, words):
    network(Path("net"))
    damage(pairs(Path("pairs")))
    line = refused(*fusing())
    assert all(word in line for word in words), line


def test_bad_requests_to_fuse(refused, run):
    network(Path("net"))
    pairs(Path("pairs"))
    assert "no network 'nets': give the folder of a run" in refused(*fusing("--network", "nets"))
    assert "unknown device abacus" in refused(*fusing("--device", "abacus"))
    assert "--resize must be one of second" in refused(*fusing("--resize", "both"))
    assert "tiny.yaml: a part of this path is a file" in refused(*fusing(output="tiny.yaml"))
    code, output, _ = run("fuse", "--help")
    assert code == 0
    assert all(name in output for name in shipped_names())


@pytest.mark.parametrize(
    ("task", "first", "second", "modes"),
    [
        ("infrared-visible", "ir/scene_00000", "vis/scene_00000", ["L", "L"]),
        ("mri-ct", "mri/101008", "ct/101008", ["L", "L"]),
        ("mri-spect", "mri/101008", "spect/101008", ["L", "RGB"]),
        ("multi-exposure", "under/scene_00000", "over/scene_00000", ["RGB", "RGB"]),
        ("multi-focus", "near/scene_00000", "far/scene_00000", ["RGB", "RGB"]),
    ],
)
def test_synthetic_pairs_of_every_task(run, task, first, second, modes):
    code, output, _ = run("scenes", "--task", task, "-o", "made", "--count", "2", "--size", "48x40")
    folders = [Path("made") / Path(name).parent for name in (first, second)]
    labels = ", with labels in made/boxes and made/label" if task == "infrared-visible" else ""
    assert (code, output) == (0, f"2 pairs in {folders[0]} and {folders[1]}{labels}\n")
    assert sorted(path.name for path in Path("made").rglob("*.txt")) == (
        ["classes.txt", "label-classes.txt", "scene_00000.txt", "scene_00001.txt"] if labels else []
    )
    images = [Image.open(f"made/{name}.png") for name in (first, second)]
    assert [image.size for image in images] == [(48, 40)] * 2
    assert [image.mode for image in images] == modes
    assert [len(list(folder.iterdir())) for folder in folders] == [2, 2]


def test_bad_requests_for_synthetic_pairs(refused):
    assert "task must be one of infrared-visible, " in refused("scenes", "--task", "multi-focal", "-o", "made")
    assert "--size must be WIDTHxHEIGHT from 32x32 on" in refused("scenes", "--size", "31x40", "-o", "made")
