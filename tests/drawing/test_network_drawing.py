"""Drawings, with graphviz and without: all files, real text, the same bytes each time."""

import os
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from timfuse.drawing import draw, genotype_graph
from timfuse.drawing.canvas import _place, _text_measure
from timfuse.drawing.picture import cell_picture, network_picture
from timfuse.genotypes import load_genotype

WITH_DOT = pytest.param(
    "dot",
    marks=pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz's program dot is not installed"),
)


@pytest.fixture(params=[WITH_DOT, "python"])
def way(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setenv("PATH", "")
    return request.param


def words(path):
    """Collect the texts of an SVG file, without its spaces."""
    texts = (text for element in ElementTree.parse(path).iter() for text in element.itertext())
    return "".join("".join(texts).split())


def squeezed(text):
    return "".join(text.split())


def test_every_file_is_written(way, every_kind, tmp_path, some_parameters):
    drawing = draw(every_kind, tmp_path / "new", some_parameters(every_kind))
    names = [f"{name}.{form}" for name in ("network", "cell_1", "cell_2", "cell_3") for form in ("dot", "svg", "png")]
    assert [path.name for path in drawing.files] == names
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(names)
    for path in drawing.files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                width, height = image.size
                assert len(image.getcolors(1 << 24)) > 20
            assert 0.2 < width / height < 3
    if way == "dot":
        assert drawing.note is None
    else:
        assert "install graphviz" in drawing.note


def test_every_word_can_be_found_in_the_svg(way, every_kind, tmp_path, some_parameters):
    parameters = some_parameters(every_kind)
    draw(every_kind, tmp_path, parameters)
    found = words(tmp_path / "network.svg")
    graph = genotype_graph(every_kind, parameters)
    for _, node in graph.nodes(data=True):
        assert squeezed(node["label"]) in found
        assert squeezed(node["detail"]) in found
        if node["modules"]:
            assert squeezed(f"{node['parameters']:,} parameters") in found
    for text in (every_kind.name, "Cell 1 · decomposition", "Cell 3 · multi-scale", "32 channels"):
        assert squeezed(text) in found
    assert squeezed(f"{sum(parameters.values()):,} parameters") in found
    assert squeezed(f"{every_kind.name} · cell 2") in words(tmp_path / "cell_2.svg")


def test_the_same_genotype_gives_the_same_bytes(way, tmp_path):
    # In other processes, since the order of a set changes with the process.
    script = (
        "import sys; from pathlib import Path; from timfuse.genotypes import draw, load_genotype;"
        "folder = Path(sys.argv[1]);"
        "draw(load_genotype('tim_ivif'), folder); draw(load_genotype('tim'), folder / 'tim')"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", script, str(tmp_path / seed)], env=environment, check=True)
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*.*"))
    assert len(files) == 15 + 9
    for path in files:
        assert (tmp_path / "1" / path).read_bytes() == (tmp_path / "2" / path).read_bytes(), path


def test_without_parameters_no_counts_are_shown(way, tmp_path):
    draw(load_genotype("tim_light"), tmp_path)
    assert "parameters" not in words(tmp_path / "network.svg")


def test_a_dot_that_fails_is_told(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "dot"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'no plugin for png' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    drawing = draw(load_genotype("tim_light"), tmp_path / "out")
    assert "no plugin for png" in drawing.note
    assert "Residual" in words(tmp_path / "out" / "network.svg")


def test_matplotlib_is_imported_only_to_draw():
    script = "import sys, timfuse.genotypes; sys.exit('matplotlib' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


def test_pyplot_stays_untouched(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(load_genotype("tim_light"), tmp_path)
    assert dict(matplotlib.rcParams) == before


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_box_overlaps_another_and_frames_hold_their_cells(data, any_genotype, some_parameters):
    genotype = data.draw(any_genotype)
    parameters = some_parameters(genotype)
    measure = _text_measure()
    pictures = [network_picture(genotype, parameters)]
    if genotype.cells:
        pictures.append(cell_picture(genotype, 0, parameters))
    for picture in pictures:
        placement = _place(picture, measure)
        boxes = list(placement.nodes.values())
        for number, box in enumerate(boxes):
            assert not any(overlap(box, other, 1.0) for other in boxes[:number])
        frames = list(placement.frames.items())
        for number, (index, frame) in enumerate(frames):
            assert not any(overlap(frame, other, 1.0) for _, other in frames[:number])
            for node, box in placement.nodes.items():
                inside = picture.graph.nodes[node]["cell"] == index
                assert inside == overlap(frame, box, 0.0)
                if inside:
                    assert frame.top < box.top
                    assert box.bottom < frame.bottom
                    assert abs(box.x - frame.x) + box.width / 2 < frame.width / 2


def overlap(one, other, distance):
    """Tell whether two boxes come closer than `distance`."""
    return (
        abs(one.x - other.x) < (one.width + other.width) / 2 + distance
        and abs(one.y - other.y) < (one.height + other.height) / 2 + distance
    )
