import numpy as np
import pytest
from PIL import Image

from timfuse.runtime.errors import UserError
from timfuse.training.train_curves import draw_curves, draw_examples

METRICS = ("loss", "VIF", "SD")


def history(steps=6):
    rows = [{"step": step, "loss": 1 / (step + 1)} for step in range(steps)]
    for step in range(1, steps, 2):
        rows[step]["validation"] = {"mean": {name: step / 10 for name in METRICS}}
    return rows


def test_examples_are_shown_pixel_by_pixel(tmp_path):
    images = {"a": np.arange(60, dtype=np.uint8).reshape(5, 12), "b": np.full((3, 9), 7, np.uint8)}
    (path,) = draw_examples(images, tmp_path / "pictures")
    assert path == tmp_path / "pictures" / "examples.png"
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (5 + 4 + 3, 12)
    assert np.array_equal(sheet[:5], images["a"])
    assert np.array_equal(sheet[9:, :9], images["b"])
    assert (sheet[9:, 9:] == 255).all()
    assert draw_examples({}, tmp_path) == []


def test_examples_in_colour_stay_in_colour(tmp_path):
    images = {"a": np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3), "b": np.full((3, 9, 3), (7, 8, 9), np.uint8)}
    (path,) = draw_examples(images, tmp_path)
    with Image.open(path) as image:
        assert image.mode == "RGB"
        sheet = np.asarray(image)
    assert sheet.shape == (5 + 4 + 3, 9, 3)
    assert np.array_equal(sheet[:5, :7], images["a"])
    assert np.array_equal(sheet[9:], images["b"])
    assert (sheet[5:9] == 255).all()
    assert (sheet[:5, 7:] == 255).all()


def test_curves_are_the_same_file_each_time_and_name_the_metrics(tmp_path):
    levels = {"average": dict.fromkeys(METRICS, 0.2), "maximum": dict.fromkeys(METRICS, 0.3)}
    files = draw_curves(history(), tmp_path / "one", levels)
    assert [path.name for path in files] == ["curves.svg", "curves.png"]
    with Image.open(files[1]) as image:
        image.verify()
    assert "<svg" in files[0].read_text()
    draw_curves(history(1000), tmp_path / "long")


def test_no_validation_yet(tmp_path):
    with pytest.raises(UserError, match="holds no validation yet; wait for the first one"):
        draw_curves(history(1), tmp_path)
