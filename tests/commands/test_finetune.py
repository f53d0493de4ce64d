"""`timfuse finetune` and `timfuse evaluate-task`."""

import re
import shutil
from pathlib import Path

import pytest

from timfuse.data import write_scenes
from timfuse.downstream import load_task_network
from timfuse.genotypes import load_genotype

from .conftest import settings, write_image, write_network, write_pairs

FINETUNING = """
device: cpu
run: tuned
init: net
data: {root: scenes, crop: 32, batch_size: 2}
downstream: {width: 8}
guidance: {strategy: lagrangian, tolerance: 0.25}
train: {steps: 2, warmup: 1, images: 1}
"""


def finetuning(*pairs):
    """Write labelled pairs, a network and a config; return the words that adapt the network to the pairs."""
    write_scenes(Path("scenes"), 4, height=48, width=64, seed=0)
    write_network(Path("net"))
    Path("finetuning.yaml").write_text(FINETUNING, encoding="utf-8")
    return ["finetune", "--config", "finetuning.yaml", *settings(*pairs)]


def test_finetuning_for_a_task(run, refused):
    pytest.importorskip("faster_coco_eval")
    command = finetuning()
    code, output, errors = run(*command)
    assert code == 0, errors
    lines = output.splitlines()
    assert lines[0].split() == ["validation", "loss", "AP50", "AP75", "mAP"]
    assert [line.split()[:2][-1] for line in lines[2:5]] == ["person", "bicycle", "car"]
    assert len(lines[1].split()) == 5
    assert lines[5].startswith("before    loss ")
    assert re.fullmatch(r"without   loss -?\d+\.\d{4} \((average|maximum|laplacian)\)", lines[6])
    assert re.match(r"promise   (kept|broken): ", lines[7])
    assert lines[8] == "weights   tuned/weights.safetensors and tuned/task, of step 1"
    for path in ("tuned/weights.safetensors", "tuned/task", "tuned/pictures", "tuned/history.jsonl"):
        assert path in output
        assert Path(path).exists()
    assert load_task_network(Path("tuned")).width == 8
    assert load_genotype(Path("tuned")).provenance["stage"] == "finetune"
    assert "tuned holds a run; go on with --resume" in refused(*command)
    assert run(*command, "--resume")[1] == output
    curves = Path("tuned/pictures/curves.svg").read_bytes()
    assert b">promised<" in curves
    shutil.rmtree("tuned/pictures")
    code, output, _ = run("visualize", "tuned")
    assert code == 0
    assert {"tuned/pictures/network.svg", "tuned/pictures/curves.svg"} <= set(output.splitlines())
    assert Path("tuned/pictures/curves.svg").read_bytes() == curves
    Path("tuned/genotype.yaml").unlink()
    assert run("visualize", "tuned")[1].splitlines()[1:] == ["tuned/pictures/curves.svg", "tuned/pictures/curves.png"]


def test_finetuning_for_the_fusion_alone(run):
    write_network(Path("net"), task="mri-ct")
    for name in "abcdef":
        for folder in ("mri", "ct"):
            write_image(Path("pairs") / folder / f"{name}.png", (64, 48))
    words = settings("init=net", "data.crop=32", "data.batch_size=2", "device=cpu")
    code, output, errors = run("finetune", "--data", "pairs", "--steps", 2, "-r", "tuned", *words)
    assert code == 0, errors
    lines = output.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["validation", "loss"],
        ["mean", lines[1].split()[1]],
        ["before", "loss"],
    ]
    assert lines[3].startswith("weights   tuned/weights.safetensors, of step ")
    assert load_genotype(Path("tuned")).task == "mri-ct"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["guidance.strategy=lagrange"], ["guidance.strategy", "'frozen', 'joint', 'lagrangian'"]),
        (["guidance.strategy=learned_loss", "guidance.estimator=first_order"], ["choose gauss_newton"]),
        (
            ["guidance.strategy=detfusion", "downstream.kind=segmentation"],
            ["downstream.kind = detection for detfusion, which is guided by detectors"],
        ),
        (["init=null"], ["give either init", "or genotype"]),
        (["init=null", "genotype=tim_ivif"], ["tim_ivif is a refine network"]),
        (["data.root=pairs"], ["pairs has no labels for detection: give boxes/NAME.txt and classes.txt"]),
        (["data.crop=32", "data.batch_size=1"], ["data.batch_size above 1 or data.crop above 32"]),
    ],
)
def test_bad_requests_to_finetune(refused, settings, words):
    command = finetuning(*settings)
    write_pairs(Path("pairs"), size=(64, 48))
    line = refused(*command)
    assert all(word in line for word in words), line
    assert not Path("tuned").exists()


def test_scoring_what_fused_images_are_good_for(run, refused):
    pytest.importorskip("faster_coco_eval")
    assert run(*finetuning("guidance.strategy=joint", "train.validate_every=2"))[0] == 0
    command = ["evaluate-task", "tuned", "--data", "scenes", "--fused", "mine=scenes/vis", "-o", "table"]
    command += ["--baselines", "infrared,visible,average", "--no-fresh"]
    code, output, errors = run(*command)
    assert code == 0, errors
    lines = output.splitlines()
    assert " ".join(lines[0].split()) == "method AP50 AP75 mAP AP50 person AP50 bicycle AP50 car loss"
    assert [line.split()[0] for line in lines[1:6]] == ["infrared", "visible", "average", "mine", "tuned"]
    assert lines[2].split()[1:] == lines[4].split()[1:]
    assert lines[6].split() == ["method", "against", "AP50", "95", "%", "interval"]
    assert [line.split()[:2] for line in lines[7:11]] == [
        ["tuned", name] for name in ("infrared", "visible", "average", "mine")
    ]
    files = ["scores.csv", "table.md", "differences.csv", "differences.md"]
    assert lines[11].startswith("note: the scores are of the validation pairs of scenes")
    assert lines[12:] == [f"table/{file}" for file in files]
    assert Path("table/table.md").read_text().splitlines()[6].startswith("| tuned | 1 | ")
    assert len(Path("table/scores.csv").read_text().splitlines()) == 6
    command = ["evaluate-task", "tuned", "--baselines", "none", "--no-fresh", "-o", "alone"]
    lines = run(*command, "--corrupt", "noise", "--severity", "3")[1].splitlines()
    assert [line.split()[0] for line in lines] == [
        *("method", "tuned", "method", "tuned", "note:"),
        *("alone/scores.csv", "alone/table.md", "alone/corrupted.csv"),
    ]
    line = refused("evaluate-task", "nowhere", "-o", "new")
    assert line == "nowhere holds no run; give the folder of a `timfuse finetune` run"
    assert "net holds no run" in refused("evaluate-task", "net", "-o", "new")
    assert "two methods are called vis" in refused(*command, "--fused", "scenes/vis", "--fused", "vis=scenes/ir")
    assert "the baseline must be one of infrared" in refused("evaluate-task", "tuned", "--baselines", "ir")
    assert "the corruption must be one of noise" in refused("evaluate-task", "tuned", "--corrupt", "rain")
    assert "the table would have 2 rows visible" in refused("evaluate-task", "tuned", "--fused", "visible=scenes/vis")
    assert "the data folder far does not exist" in refused("evaluate-task", "tuned", "--data", "far", "-o", "new")
    write_pairs(Path("pairs"), size=(64, 48))
    assert "pairs has no labels for detection" in refused("evaluate-task", "tuned", "--data", "pairs", "-o", "new")
