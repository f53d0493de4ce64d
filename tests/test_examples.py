"""The notebook and the scripts in examples/ run as they are."""

import json
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ARGUMENTS = {"fuse_folder.py": ["scenes", "fused"], "own_operator.py": ["4"], "search.py": ["4"]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def _run(name, monkeypatch):
    monkeypatch.setattr("sys.argv", [name, *ARGUMENTS[name]])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_script_is_tested():
    elsewhere = {"fuse_onnx.py"}  # tests/deploy/test_export.py
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*ARGUMENTS, *elsewhere}


def test_a_folder_is_fused(folder, monkeypatch, capsys):
    _run("fuse_folder.py", monkeypatch)
    assert len(list((folder / "fused").glob("*.png"))) == 3
    assert "scene_00000: 320x240" in capsys.readouterr().out


@pytest.mark.usefixtures("registrations")
def test_an_operator_of_ones_own_is_trained(folder, monkeypatch, capsys):
    _run("own_operator.py", monkeypatch)
    assert "blur_k5" in (folder / "runs" / "own" / "genotype.yaml").read_text()
    assert capsys.readouterr().out.startswith("best: loss ")


def test_a_genotype_is_searched_and_printed(folder, monkeypatch, capsys):
    _run("search.py", monkeypatch)
    assert capsys.readouterr().out.count("successive ") == 2
    assert (folder / "runs" / "search" / "genotype.yaml").is_file()


def test_the_notebook_runs(folder, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    notebook = json.loads((EXAMPLES / "fuse.ipynb").read_text(encoding="utf-8"))
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "outputs do not belong into the repository"
            exec(compile("".join(cell["source"]), "fuse.ipynb", "exec"), names)
    plt.close("all")
    assert len(shown) == 2
    printed = capsys.readouterr().out
    assert "copy_second" in printed
    assert "after 5 steps" in printed
    adapted = names["adapted"]
    assert adapted.curve[adapted.kept] < adapted.curve[0] < adapted.fresh[0]
