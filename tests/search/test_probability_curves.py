import pytest
from PIL import Image

from timfuse.runtime.errors import UserError
from timfuse.search.probability_curves import draw_probabilities

OPERATORS = ["residual_k3_d1", "dense_k5_d2", "spatial_attention_k7"]


def row(step, edges=("cell 1 step 1", "cell 1 step 2", "cell 2 step 1")):
    shares = [0.4 + 0.01 * step, 0.3, 0.3 - 0.01 * step]
    return {"step": step, "probability": {edge: dict(zip(OPERATORS, shares, strict=True)) for edge in edges}}


def test_every_edge_and_operator_is_named(tmp_path):
    history = [row(0), {"step": 1, "inner_loss": 1.0}, row(10), row(20)]
    svg, png = draw_probabilities(history, tmp_path / "pictures")
    assert (svg, png) == (tmp_path / "pictures/probabilities.svg", tmp_path / "pictures/probabilities.png")
    with Image.open(png) as image:
        image.load()
        assert min(image.size) > 300
    assert svg.read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["probabilities.png", "probabilities.svg"]


def test_the_texts_of_the_picture(tmp_path):
    svg = draw_probabilities([row(0), row(20)], tmp_path)[0].read_text(encoding="utf-8")
    for text in ("cell 1 step 1: residual 3×3 0.60", "cell 2 step 1", "dense 5×5, dilation 2", "spatial attention 7×7"):
        assert text in svg


@pytest.mark.parametrize("edges", [("cell 1 step 1",), tuple(f"cell {index} step 1" for index in range(1, 8))])
def test_one_edge_or_many_and_a_single_step(tmp_path, edges):
    assert all(path.stat().st_size > 1000 for path in draw_probabilities([row(0, edges)], tmp_path))


@pytest.mark.parametrize("history", [[], [{"step": 0, "inner_loss": 1.0}]])
def test_a_history_without_probabilities(tmp_path, history):
    with pytest.raises(UserError, match="holds no operator probabilities yet"):
        draw_probabilities(history, tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a part of this path is a file"):
        draw_probabilities([row(0)], tmp_path / "file")
