"""The HTML page: whole in itself, well formed, and with the right data."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from timfuse.data import read_pixels
from timfuse.deploy.comparison import write_comparison
from timfuse.deploy.comparison_page import comparison_page
from timfuse.deploy.evaluation import evaluate
from timfuse.deploy.evaluation_table import write_tables
from timfuse.deploy.zoom_regions import Region
from timfuse.objectives.metrics import METRICS
from timfuse.runtime.errors import UserError

from ..pages import Structure


@pytest.fixture
def page(pairs, methods):
    return comparison_page(pairs, methods, evaluation=evaluate(pairs, methods, ("EN", "MI")))


def data_of(page):
    return json.loads(Structure(page).data)


def test_the_page_needs_nothing_but_itself(page):
    structure = Structure(page)
    assert not [value for name, value in structure.attributes if name in ("src", "href", "srcset", "data")]
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", page.replace("data:image", ""))
    assert "default-src 'none'" in page
    for pair in data_of(page)["pairs"]:
        assert all(image.startswith("data:image/jpeg;base64,") for image in pair["images"])


def test_the_page_is_well_formed_and_its_script_finds_what_it_looks_for(page):
    structure = Structure(page)
    assert structure.title == "Fused images"
    assert len(set(structure.identifiers)) == len(structure.identifiers)
    assert "{{" not in page
    assert set(re.findall(r'\$\("([a-z-]+)"\)', page)) <= set(structure.identifiers)


def test_the_page_holds_the_images(page, pairs, methods):
    data = data_of(page)
    assert data["labels"] == ["ir", "vis", "dark", "bright"]
    for index, pair in enumerate(data["pairs"]):
        files = (pairs[index].first, pairs[index].second, methods["dark"][index], methods["bright"][index])
        for address, path in zip(pair["images"], files, strict=True):
            image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
            assert image.size == (pair["width"], pair["height"])
            difference = np.asarray(image).astype(float) - read_pixels(path)
            assert np.abs(difference).mean() < 3
        for x, y, width, height in pair["regions"]:
            assert 0 <= x < x + width <= 1 + 1e-9
            assert 0 <= y < y + height <= 1 + 1e-9


def test_large_images_are_reduced(tmp_path, pairs):
    Image.new("L", (3200, 200)).save(tmp_path / "large.png")
    pair = pairs[0]._replace(first=tmp_path / "large.png", second=tmp_path / "large.png")
    shown = data_of(comparison_page([pair], {"m": [tmp_path / "large.png"]}))["pairs"][0]
    image = Image.open(io.BytesIO(base64.b64decode(shown["images"][2].partition(",")[2])))
    assert image.size == (1600, 100)
    assert (shown["width"], shown["height"]) == (3200, 200)


def test_the_page_shows_the_scores_of_all_and_of_each_pair(page, pairs, methods):
    scores = data_of(page)["scores"]
    evaluation = evaluate(pairs, methods, ("EN", "MI"))
    assert scores["metrics"] == ["EN↑", "MI↑"]
    assert scores["definitions"] == [
        f"{metric.full_name}: {metric.definition}" for metric in map(METRICS.get, ("EN", "MI"))
    ]
    assert scores["legend"].startswith("EN: of the fused image alone; MI: sums over both sources; bold best, ")
    assert [method["trivial"] for method in scores["methods"]] == [False, False, True, True, True, True]
    assert scores["mean"]["places"] == evaluation.places.tolist()
    assert float(scores["mean"]["texts"][0][1]) == pytest.approx(evaluation.mean[0, 1], abs=1e-3)
    assert float(scores["pairs"][2]["texts"][1][0]) == pytest.approx(evaluation.values[1, 2, 0], abs=1e-3)


def test_a_page_without_scores(pairs, methods):
    assert data_of(comparison_page(pairs, methods))["scores"] is None


def test_what_is_undefined_is_a_dash_on_the_page(pairs, methods):
    height, width = read_pixels(pairs[1].first).shape
    Image.fromarray(np.zeros((height, width), np.uint8)).save(methods["dark"][1])
    scores = data_of(comparison_page(pairs, methods, evaluation=evaluate(pairs, methods, ("CC",))))["scores"]
    assert (scores["pairs"][1]["texts"][0], scores["pairs"][1]["ranks"][0]) == (["\N{EN DASH}"], "\N{EN DASH}")
    assert float(scores["mean"]["texts"][0][0]) > 0
    assert scores["legend"].endswith("; \N{EN DASH} undefined, left out of means and ranks")


def test_names_that_are_no_text_are_escaped(pairs, methods, tmp_path):
    """A name with a byte that is no UTF-8, and one with a control character, in every kind of output."""
    renamed = [pair._replace(name=name) for pair, name in zip(pairs, ("\udcff", "x\ry", "z"), strict=True)]
    scored = evaluate(renamed, {"m\udcfe": methods["dark"]}, ("EN",), trivial=False)
    assert (scored.methods, scored.images) == (("m\\udcfe",), ("\\udcff", "x\\ry", "z"))
    write_tables(scored, tmp_path / "scores")
    assert (
        (tmp_path / "scores" / "metrics.csv")
        .read_text(encoding="utf-8")
        .startswith("method,image,EN\nm\\udcfe,\\udcff,")
    )
    sheet, page = write_comparison(renamed, {"m\udcfe": methods["dark"]}, tmp_path / "seen")
    data = data_of(page.read_text(encoding="utf-8"))
    assert data["labels"][2] == data["scores"]["methods"][0]["name"] == "m\\udcfe"
    assert [pair["name"] for pair in data["pairs"]] == ["\\udcff", "x\\ry", "z"]
    assert Image.open(sheet).format == "PNG"


def test_names_cannot_end_the_script(pairs, methods):
    name = "</script><script>alert(1)</script>{{note}}"
    page = comparison_page([pairs[0]._replace(name=name)], {name: methods["dark"][:1]})
    data = data_of(page)
    assert data["pairs"][0]["name"] == name
    assert data["labels"][2] == name


def test_zoom_is_what_the_page_offers(pairs, methods):
    shown = data_of(comparison_page(pairs, methods, zoom=[Region(10, 20, 16, 12)]))["pairs"]
    assert shown[0]["regions"] == [[10 / 64, 20 / 48, 16 / 64, 12 / 48]]
    assert all(len(pair["regions"]) == 1 for pair in shown)


@pytest.mark.parametrize(
    ("output", "names"),
    [("a.png", ["a.png"]), ("b.html", ["b.html"]), ("c", ["c/sheet.png", "c/page.html"])],
)
def test_the_output_decides_what_is_written(pairs, methods, tmp_path, output, names):
    files = write_comparison(pairs, methods, tmp_path / "new" / output)
    assert files == [tmp_path / "new" / name for name in names]
    for file in files:
        assert file.stat().st_size > 1000
        if file.suffix == ".png":
            assert Image.open(file).format == "PNG"


def test_an_output_that_cannot_be_written(pairs, methods, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_comparison(pairs, methods, tmp_path / "file" / "a.png")


def test_pictures_come_along_as_they_are(pairs, methods, tmp_path):
    curves = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(curves).save(tmp_path / "curves.png")
    page = comparison_page(pairs, methods, pictures=[tmp_path / "curves.png"])
    assert Structure(page).open == []
    (address,) = re.findall(r'<figure class="card"><img src="data:image/png;base64,([^"]+)" alt="curves">', page)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(address)))), curves)
