"""`timfuse align` and `fuse --align`: aligned pairs, transforms, and pairs that cannot be aligned."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timfuse.data import load_alignment, read_pixels, write_pixels, write_scenes

from .conftest import write_image, write_network


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Two scenes, the visible images 9 pixels to the right of the infrared ones."""
    root = tmp_path_factory.mktemp("rendered")
    write_scenes(root, 2, height=120, width=160, seed=11)
    for file in (root / "ir").iterdir():
        write_pixels(file, read_pixels(file)[:, 9:])
    for file in (root / "vis").iterdir():
        write_pixels(file, np.ascontiguousarray(read_pixels(file)[:, :-9]))
    return root


@pytest.fixture(autouse=True)
def _pairs(rendered):
    shutil.copytree(rendered, "off")
    write_network(Path("net"))


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_one_transform_for_all(run, refused):
    code, output, _ = run("align", "--data", "off", "-o", "aligned", "--model", "translation")
    assert code == 0
    assert output.splitlines()[0].startswith("all pairs: translation with confidence 0.")
    assert output.splitlines()[1] == "2 pairs are in aligned/ir and aligned/vis, some in aligned/alignment.png"
    names = ["scene_00000.png", "scene_00001.png"]
    images = [f"{folder}/{name}" for folder in ("ir", "vis") for name in names]
    assert written("aligned") == sorted(["alignment.png", *images, "transform.yaml"])
    alignment = load_alignment(Path("aligned/transform.yaml"))
    assert np.array(alignment.matrix)[:2, 2] == pytest.approx([9, 0], abs=0.5)
    assert {Image.open(Path("aligned", image)).size[0] for image in images} <= {141, 142, 143}
    assert Image.open("aligned/alignment.png").size[1] > 400
    # The aligned pairs are pairs as any others, and are as `fuse --align` makes them.
    fuse = ["fuse", "-n", "net", "--device", "cpu"]
    assert run(*fuse, "--data", "aligned", "-o", "after")[0] == 0
    assert run(*fuse, "--data", "off", "--align", "aligned/transform.yaml", "-o", "fused")[0] == 0
    for name in names:
        assert np.array_equal(read_pixels(Path("after", name)), read_pixels(Path("fused", name)))
    assert "aligned/transform.yaml is there already" in refused("align", "--data", "off", "-o", "aligned")
    assert run("align", "--data", "off", "-o", "aligned", "--model", "translation", "--overwrite")[0] == 0


def test_one_transform_for_each_pair(run, refused):
    write_image(Path("off/ir/blank.png"), (151, 120))
    write_image(Path("off/vis/blank.png"), (151, 120), seed=1)
    code, output, errors = run("align", "--data", "off", "-o", "aligned", "--each", "--model", "translation")
    assert code == 1
    assert [line.partition(":")[0] for line in output.splitlines()[:-1]] == ["scene_00000", "scene_00001"]
    assert "error: the pair blank: by no transform do the edges of the images agree" in errors
    names = [file for file in written("aligned") if file.endswith(".yaml")]
    assert names == ["transforms/scene_00000.yaml", "transforms/scene_00001.yaml"]
    single = ["align", "--first", "off/ir/blank.png", "--second", "off/vis/blank.png", "-o", "none"]
    assert "by no transform" in refused(*single)
    assert "the pair blank: by no transform" in refused(*single, "--each")
    assert written("none") == []


def test_fusing_pairs_that_are_not_aligned(run, refused):
    fuse = ["fuse", "-n", "net", "--device", "cpu", "--data", "off", "-o", "out"]
    code, _, errors = run(*fuse)
    assert code == 0
    assert "warning: the edges agree best at a shift of 9 px (in 2 pairs looked at); align the images" in errors
    code, output, errors = run(*fuse, "--overwrite", "--align", "auto")
    assert code == 0
    assert output.startswith("aligned by one homography, with confidence 0.")
    assert "warning" not in errors
    assert "--align and --resize exclude each other" in refused(*fuse, "--align", "auto", "--resize", "second")


def test_transforms_that_do_not_fit(run, refused):
    assert run("align", "--data", "off", "-o", "aligned", "--model", "translation")[0] == 0
    write_image(Path("other/ir/a.png"))
    write_image(Path("other/vis/a.png"))
    fuse = ["fuse", "-n", "net", "--device", "cpu", "--data", "other", "-o", "out", "--align"]
    line = refused(*fuse, "aligned/transform.yaml")
    assert line.startswith("aligned/transform.yaml, the pair a: the transform is for images of 151x120 and 151x120, ")
    assert "cannot read nowhere.yaml" in refused(*fuse, "nowhere.yaml")
    assert "other/ir holds the sources" in refused("align", "--data", "other", "-o", "other", "--each")
    assert "at least 32x32 pixels" in refused("align", "--data", "other", "-o", "aligned2")
    assert "model must be one of" in refused("align", "--data", "off", "-o", "more", "--model", "spline")


def test_sources_in_the_other_order_are_put_right(run):
    model = ["--model", "translation"]
    code, output, _ = run("align", "--first", "off/vis", "--second", "off/ir", "-o", "aligned", *model)
    assert code == 0
    assert "note: by the names of the folders, ir is taken as ir and vis as vis" in output
    assert run("align", "--data", "off", "-o", "other", *model)[0] == 0
    for name in ("ir/scene_00000.png", "vis/scene_00000.png"):
        assert np.array_equal(read_pixels(Path("aligned", name)), read_pixels(Path("other", name)))


def test_another_alignment_replaces_all_of_the_earlier_one(run, refused):
    align = ["align", "--data", "off", "-o", "aligned", "--model", "translation"]
    assert run(*align, "--each")[0] == 0
    for folder in ("ir", "vis"):
        Path("off", folder, "scene_00001.png").unlink()
    assert "transforms is there already; replace it with --overwrite" in refused(*align)
    assert run(*align, "--overwrite")[0] == 0
    assert written("aligned") == ["alignment.png", "ir/scene_00000.png", "transform.yaml", "vis/scene_00000.png"]
    Path("others/ir").mkdir(parents=True)
    assert "ir is not from an earlier alignment" in refused(*align[:4], "others", "--overwrite")
    assert "off/ir holds the sources" in refused("align", "--first", "off/ir", "--second", "off/vis", "-o", "off/ir")


def test_a_pair_that_cannot_be_read_does_not_stop_the_others(run):
    for folder in ("ir", "vis"):
        Path("off", folder, "broken.png").write_bytes(b"no image")
    code, _, errors = run("align", "--data", "off", "-o", "aligned", "--model", "translation")
    assert code == 1
    assert "error: the pair broken: " in errors
    code, _, errors = run("fuse", "-n", "net", "--device", "cpu", "--data", "off", "-o", "out")
    assert code == 1
    assert "warning: the edges agree best at a shift of 9 px (in 2 pairs looked at)" in errors
