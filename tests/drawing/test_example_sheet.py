import numpy as np
from PIL import Image

from timfuse.drawing.example_sheet import draw_examples


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
