import pytest
from PIL import Image

from timfuse.runtime.errors import UserError
from timfuse.training.train_curves import draw_curves

METRICS = ("loss", "VIF", "SD")


def history(steps=6):
    rows = [{"step": step, "loss": 1 / (step + 1)} for step in range(steps)]
    for step in range(1, steps, 2):
        rows[step]["validation"] = {"mean": {name: step / 10 for name in METRICS}}
    return rows


def test_the_curves_name_the_metrics_and_the_last_score(tmp_path):
    svg, png = draw_curves(history(), tmp_path / "one")
    assert (svg.name, png.name) == ("curves.svg", "curves.png")
    with Image.open(png) as image:
        image.verify()
    text = svg.read_text(encoding="utf-8")
    assert all(f">{name} 0.5<" in text for name in METRICS)
    assert ">training<" in text
    assert ">validation<" in text


def test_a_finished_training_is_drawn_beside_fusion_without_a_network(tmp_path):
    metrics = {method: {"mean": dict.fromkeys(METRICS, 0.1)} for method in ("best", "average", "maximum")}
    text = draw_curves(history(), tmp_path, metrics)[0].read_text(encoding="utf-8")
    assert ">average<" in text
    assert ">maximum<" in text
    assert ">best<" not in text
    unfinished = draw_curves(history(), tmp_path, {"best": metrics["best"]})[0].read_text(encoding="utf-8")
    assert ">average<" not in unfinished


def test_a_metric_that_was_not_finite_leaves_a_gap(tmp_path):
    rows = history()
    rows[5]["validation"]["mean"]["VIF"] = None  # as the history writes it
    assert ">VIF<" in draw_curves(rows, tmp_path)[0].read_text(encoding="utf-8")


def test_no_validation_yet(tmp_path):
    with pytest.raises(UserError, match="holds no validation yet; wait for the first one"):
        draw_curves(history(1), tmp_path)
