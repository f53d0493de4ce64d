"""`timfuse networks`, `timfuse genotypes` and `timfuse visualize`."""

import shutil
from pathlib import Path

import pytest

from timfuse.genotypes import load_genotype, save_genotype, zoo_names

from .conftest import searching, write_network


def test_the_zoo_has_a_line_for_each_genotype(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, output, _ = run("genotypes")
    heading, *lines, caption = output.splitlines()
    assert code == 0
    assert heading.split() == ["name", "task", "network", "source", "parameters", "GFLOPs"]
    assert caption.startswith("GFLOPs for a 640x480 pair")
    assert [line.split()[0] for line in lines] == list(zoo_names())
    for line in lines:
        genotype = load_genotype(line.split()[0])
        assert line.split()[1:3] == [genotype.task, genotype.network]
        assert " ".join(str(genotype.provenance["source"]).split()) in " ".join(line.split())
    parameters = {line.split()[0]: line.split()[-2] for line in lines}
    assert [parameters[name] for name in ("tim", "tim_light", "tim_ivif")] == ["994,917", "127,358", "237,308"]


def test_networks_are_listed_and_a_damaged_one_is_told(run, refused):
    for name in ("one", "two"):
        write_network(Path("runs", name))
    code, output, _ = run("networks", "runs")
    heading, one, two, caption = output.splitlines()
    assert code == 0
    assert heading.split() == ["name", "task", "parameters", "kB", "ms", "VIF", "Qabf", "MEF-SSIM"]
    assert one.split()[:2] == ["runs/one", "infrared-visible"]
    assert one.split()[5:] == ["-", "-", "-"]
    assert two.startswith("runs/two")
    assert caption.startswith("ms for a grey 640x480 pair on ")
    Path("runs/two/weights.safetensors").write_bytes(b"")
    code, output, errors = run("networks", "runs")
    assert code == 1
    assert len(output.splitlines()) == 3
    assert errors.splitlines()[-1].startswith("error: runs/two/weights.safetensors is damaged")
    assert refused("networks", "nothing").startswith("no network 'nothing'")


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
