"""`timfuse search` and `timfuse latency`, and what every command that runs a config has in common."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from timfuse.downstream import load_task_network
from timfuse.genotypes import load_genotype
from timfuse.operators import build_network
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.errors import UserError
from timfuse.runtime.weights import load_into

from .conftest import damaged, empty, nothing, searching, two_sizes, unpaired, write_image, write_pairs

OPERATORS = """
from torch import nn
from timfuse.operators import register_operator

@register_operator("blur", kernels=(3, 5))
def blur(channels: int, kernel: int) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
"""


def nothing_written():
    return not Path("runs").exists()


def test_a_search_from_pairs_to_a_genotype(run):
    write_pairs(Path("pairs"))
    code, output, _ = run(*searching(), "--data", "pairs", "--run", "found")
    assert code == 0
    genotype = load_genotype(Path("found"))
    assert output.splitlines()[0] == f"cell 1 (successive): {genotype.cells[0].operators[0]}"
    for path in ("found/genotype.yaml", "found/pictures", "found/history.jsonl"):
        assert path in output
        assert Path(path).exists()
    load_into(build_network(genotype), Path("found/weights.safetensors"))
    assert genotype.provenance["data"]["root"] == ["pairs"]


def test_a_search_under_a_budget(run, refused):
    words = searching("space.operators=[residual_k3_d1, spatial_attention_k3]")
    code, output, _ = run(*words, "-r", "found", "--budget", "1 Mparams")
    assert code == 0
    assert output.splitlines()[-1].startswith("budget    1 Mparams: predicted ")
    assert " params, counted " in output.splitlines()[-1]
    assert load_genotype(Path("found")).provenance["budget"]["met"] is True
    line = refused(*words, "-r", "found", "--budget", "many", "--overwrite")
    assert line.startswith(
        'cost.budget = "many" must be a number above 0 with its unit, like 10ms, 5GFLOPs or 50kparams'
    )
    line = refused(*words, "-r", "found", "--budget", "10 params", "--overwrite")
    assert line.startswith("cost.budget = 10 params cannot be met: the cheapest network of this space costs ")
    assert load_genotype(Path("found")).provenance["budget"]["asked"] == "1 Mparams"


def test_predicted_against_measured_latency(run, refused):
    code, output, errors = run("latency", "--config", "tiny.yaml", "--networks", "3")
    assert code == 0
    assert "measuring latency: " in errors
    lines = output.splitlines()
    assert lines[0].split() == ["network", "predicted", "ms", "measured", "ms", "error"]
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


def test_a_search_for_detection_and_back_for_fusion(run, refused):
    words = searching("downstream.width=8")
    code, output, _ = run(*words, "-r", "found", "--downstream", "detection")
    assert code == 0
    assert "network   found/task, for detection" in output
    assert load_task_network(Path("found")).width == 8
    line = refused(*words, "-r", "found", "--downstream", "none", "--resume")
    assert line.startswith("cannot resume found: downstream.kind was detection and is now None")
    assert run(*words, "-r", "found", "--downstream", "none", "--overwrite")[0] == 0
    assert not Path("found/task").exists()
    line = refused(*searching("run=new"), "--downstream", "detecton")
    assert line.startswith("downstream.kind = \"detecton\" must be 'detection' or 'segmentation'")
    write_pairs(Path("pairs"))
    line = refused(*searching("run=new"), "--data", "pairs", "--downstream", "detection")
    assert line.startswith(
        "pairs has no labels for detection: give boxes/NAME.txt and classes.txt (YOLO), annotations/"
    )
    assert not Path("new").exists()


def test_a_search_on_operators_of_ones_own_with_two_seeds(run, refused, registrations):
    Path("mine.py").write_text(OPERATORS, encoding="utf-8")
    own = ["--operators", "mine.py"]
    search = searching("space.operators=[blur_k3, blur_k5]", "run=mine")
    assert "an operator of your own needs --operators FILE" in refused(*search)
    assert not Path("mine").exists()
    code, output, _ = run(*own, *search, "--seeds", 2)
    assert code == 0
    assert "mean ± std" in output
    assert "cell 1 step 1: blur_k" in output
    assert load_genotype("mine").provenance["operators"]["blur"]["file"] == "mine.py"
    assert load_genotype("mine").provenance["seeds"]["count"] == 2
    write_pairs(Path("pairs"), count=1)
    assert run(*own, "fuse", "--data", "pairs", "-o", "fused", "-n", "mine")[0] == 0
    assert Path("fused/a.png").is_file()


def test_files_of_operators_with_mistakes(run, refused, registrations):
    assert refused("--operators", "none.py", "genotypes").startswith("cannot read none.py: No such file")
    Path("mine.py").write_text("x = 1\ny = 1 / 0\n", encoding="utf-8")
    assert refused("--operators", "mine.py", "genotypes") == "mine.py, line 2: ZeroDivisionError: division by zero"
    with pytest.raises(UserError) as caught:
        run("--debug", "--operators", "mine.py", "genotypes")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def text_as_image(root):
    (root / "vis" / "c.png").write_text("not an image")


def two_pixels(root):
    for folder in ("ir", "vis"):
        write_image(root / folder / "a.png", (2, 1))


def no_folder(root):
    shutil.rmtree(root / "vis")


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
    damage(write_pairs(Path("pairs")))
    line = refused(*searching(), "--data", "pairs")
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
        (["search.estimator_options.clips=3"], ["clips", "first_order has no such setting", "it has none"]),
        (
            ["search.estimator=gauss_newton", "search.estimator_options.clip=-3"],
            ["search.estimator_options.clip = -3 must be"],
        ),
        (["search.warmup=4"], ["must leave steps for the architecture"]),
        (
            ["cost.budget=3"],
            ["cost.budget = 3 must be a number above 0 with its unit, like 10ms, 5GFLOPs or 50kparams"],
        ),
        (["task=mri-tc"], ["unknown task 'mri-tc' (did you mean 'mri-ct'?)"]),
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
        (b"\xff\xfe\xfa", ["other.yaml is no text in UTF-8"]),
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
    line = refused(*searching("run=run", "search.steps=5", "search.warmup=1"), "--resume")
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


def test_a_disk_that_takes_no_more():
    def limit():  # the config fits, the checkpoint does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    command = [sys.executable, "-m", "timfuse", *searching("run=run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    *_, line = done.stderr.splitlines()
    assert line == "error: cannot write run/checkpoint.pt: File too large; choose another folder"
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert not Path("run/genotype.yaml").exists()
    assert [path.name for path in Path("run").rglob("*.tmp")] == []


def test_a_loss_that_is_not_finite(refused):
    line = refused(*searching("run=run", "search.weight_learning_rate=1e30"))
    assert line.startswith("step 1: the ")
    assert " is not finite: " in line
    assert "lower search.weight_learning_rate" in line
    assert load_checkpoint(Path("run/checkpoint.pt"))
    assert not Path("run/genotype.yaml").exists()


def test_a_traceback_where_it_is_asked_for():
    command = [sys.executable, "-m", "timfuse"]
    words = searching("data.root=gone")
    plain = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr == "error: the data folder gone does not exist; check the path\n"
    debug = subprocess.run([*command, "--debug", *words], capture_output=True, text=True, check=False)
    assert debug.returncode != 0
    assert debug.stderr.startswith("Traceback (most recent call last):")
    assert debug.stderr.rstrip().endswith("UserError: the data folder gone does not exist; check the path")
