"""Drawings of networks: all files, real text, the same bytes each time, without any program or font of the machine."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from PIL import Image

from timfuse.drawing import draw, genotype_graph
from timfuse.genotypes import load_genotype
from timfuse.runtime.errors import UserError

from ..random_genotypes import genotypes

SVG = "{http://www.w3.org/2000/svg}"


def words(path):
    """Collect the texts of an SVG file, without its spaces."""
    texts = (text for element in ElementTree.parse(path).iter(f"{SVG}text") for text in element.itertext())
    return squeezed("".join(texts))


def squeezed(text):
    return "".join(text.split())


def test_every_file_is_written_without_a_program(every_kind, tmp_path, some_parameters, monkeypatch):
    monkeypatch.setenv("PATH", "")
    files = draw(every_kind, tmp_path / "new", some_parameters(every_kind))
    names = [
        f"{name}.{form}"
        for name in ("network", *(f"cell_{number}" for number in range(1, 5)))
        for form in ("dot", "svg", "png")
    ]
    assert [path.name for path in files] == names
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(names)
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                width, height = image.size
                assert len(image.convert("RGB").getcolors(1 << 24)) > 20
            assert 0.2 < width / height < 3


def test_every_word_can_be_found_in_the_svg(every_kind, tmp_path, some_parameters):
    parameters = some_parameters(every_kind)
    draw(every_kind, tmp_path, parameters)
    found = words(tmp_path / "network.svg")
    graph = genotype_graph(every_kind, parameters)
    for _, node in graph.nodes(data=True):
        assert squeezed(node["label"]) in found
        assert squeezed(node["detail"]) in found
        if node["modules"]:
            assert squeezed(f"{node['parameters']:,} parameters") in found
    for text in (every_kind.name, "Cell 1 · decomposition", "Cell 3 · multi-scale", "Cell 4 · stage", "32 channels"):
        assert squeezed(text) in found
    assert squeezed(f"{sum(parameters.values()):,} parameters") in found
    assert squeezed(f"{every_kind.name} · cell 2") in words(tmp_path / "cell_2.svg")


def test_branches_of_different_lengths_stand_level(tmp_path):
    draw(load_genotype("tim"), tmp_path)
    texts = [(text.text, text.get("y")) for text in ElementTree.parse(tmp_path / "cell_1.svg").iter(f"{SVG}text")]
    assert len({y for text, y in texts if text == "Residual 3×3"}) == 1
    assert len({y for text, y in texts if text == "Dilated 3×3, dilation 2"}) == 1


def test_the_same_genotype_gives_the_same_bytes(tmp_path):
    # In other processes, since the order of a set changes with the process.
    script = (
        "import sys; from pathlib import Path; from timfuse.drawing import draw;"
        "from timfuse.genotypes import load_genotype; folder = Path(sys.argv[1]);"
        "draw(load_genotype('tim_ivif'), folder); draw(load_genotype('tim'), folder / 'tim')"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", script, str(tmp_path / seed)], env=environment, check=True)
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*.*"))
    assert len(files) == 15 + 9
    for path in files:
        assert (tmp_path / "1" / path).read_bytes() == (tmp_path / "2" / path).read_bytes(), path


def test_without_parameters_no_counts_are_shown(tmp_path):
    draw(load_genotype("tim_light"), tmp_path)
    assert "parameters" not in words(tmp_path / "network.svg")


@settings(max_examples=15, deadline=None)
@given(genotype=genotypes(max_cells=2))
def test_any_genotype_can_be_drawn_under_any_name(genotype):
    with tempfile.TemporaryDirectory() as folder:
        draw(genotype, Path(folder))
        assert squeezed(genotype.name) in words(Path(folder, "network.svg"))


def test_a_graphviz_that_fails_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "pygraphviz.py").write_text("raise ImportError('no libgvc')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match="cannot draw the network: ImportError: no libgvc; try to install pygraphviz"):
        draw(load_genotype("tim_light"), tmp_path / "out")


def test_matplotlib_is_imported_only_to_draw():
    script = "import sys, timfuse.drawing; sys.exit('matplotlib' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0
