"""Transforms between two cameras: pairs brought to their common part, and YAML files."""

import math
from dataclasses import replace

import numpy as np
import pytest

from timfuse.data import Alignment, load_alignment, save_alignment
from timfuse.runtime.errors import UserError

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SOME = Alignment("homography", (64, 48), (160, 120), ((2.4, 0.1, 3.0), (-0.1, 2.5, 1.25), (1e-4, -2e-4, 1.0)), 0.625)


def noise(height, width, *channels, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, *channels), dtype=dtype)


def shift(x, y, size=(64, 48)):
    return Alignment("translation", size, size, ((1, 0, x), (0, 1, y), (0, 0, 1)), 0.9)


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_shifts_are_exact(shape, dtype):
    images = noise(*shape, dtype=dtype), noise(*shape[:2], dtype=np.uint8)
    for image, same in zip(images, shift(0, 0).apply(*images), strict=True):
        assert np.array_equal(image, same)
        assert image.dtype == same.dtype
    scene = noise(60, 80, *shape[2:], dtype=dtype)
    first, second = shift(5, -7).apply(scene[:48, 5:69], scene[7:55, :64])
    assert first.shape == second.shape == (41, 59, *shape[2:])
    assert np.array_equal(first, second)


def test_the_finer_image_keeps_its_pixels():
    fine = noise(120, 160)
    coarse = fine.reshape(60, 2, 80, 2).mean((1, 3)).astype(np.uint8)
    rows = ((2, 0, 0.5), (0, 2, 0.5), (0, 0, 1))  # the centre of a coarse pixel is between two fine ones
    first, second = Alignment("similarity", (80, 60), (160, 120), rows, 1.0).apply(coarse, fine)
    assert np.array_equal(second, fine[1:-1, 1:-1])
    back = tuple(tuple(row) for row in np.linalg.inv(rows).tolist())
    other = Alignment("similarity", (160, 120), (80, 60), back, 1.0).apply(fine, coarse)
    assert np.array_equal(other[0], second)
    assert np.array_equal(other[1], first)


def test_a_turned_image_is_sampled_where_it_shows_the_same():
    y, x = np.mgrid[:90, :120]
    angle = math.radians(10)
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = Alignment("similarity", (120, 90), (120, 90), ((cosine, -sine, 20), (sine, cosine, -5), (0, 0, 1)), 1.0)
    ramp = (x + y).astype(np.uint8)  # of the second camera
    seen = np.rint(cosine * x - sine * y + 20 + sine * x + cosine * y - 5).clip(0, 255).astype(np.uint8)
    first, second = turn.apply(seen, ramp)
    left, top, right, bottom = turn.common
    assert first.shape == (bottom - top, right - left) == second.shape
    assert np.abs(first.astype(int) - second).max() <= 1
    # A larger part of the second image would not be in the first.
    inverse = np.linalg.inv(turn.matrix)
    for box in ((left - 1, top, right, bottom), (left, top, right, bottom + 1)):
        corners = np.array([(a, b, 1) for a in box[::2] for b in box[1::2]])
        points = (inverse @ corners.T)[:2].T
        assert (points < 0).any() or (points > (119, 89)).any() or min(box) < 0 or box[2] > 120 or box[3] > 90


def test_pairs_of_other_sizes_and_without_common_part_are_refused():
    with pytest.raises(UserError, match="for images of 64x48 and 64x48, not of 64x48 and 32x32"):
        shift(1, 1).apply(noise(48, 64), noise(32, 32))
    with pytest.raises(UserError, match="no common part"):
        shift(64, 0).apply(noise(48, 64), noise(48, 64))
    one_column = shift(63, 0).apply(noise(48, 64), noise(48, 64))
    assert one_column[0].shape == one_column[1].shape == (48, 1)


@pytest.mark.parametrize("rows", [np.zeros((3, 3)), np.diag([1, 1, 0]), [(1, 0, 0), (0, 1, 0), (-0.05, 0, 1)]])
def test_a_matrix_that_does_not_map_the_image_is_refused(rows):
    with pytest.raises(UserError, match="no inverse, or a horizon"):
        Alignment("homography", (64, 48), (64, 48), tuple(map(tuple, rows)), 1.0)


@pytest.mark.parametrize("alignment", [SOME, shift(1.5, -2.0), replace(SOME, confidence=0.0)])
def test_files(tmp_path, alignment):
    save_alignment(alignment, tmp_path / "transform.yaml")
    assert load_alignment(tmp_path / "transform.yaml") == alignment


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema: 1", "schema: 2", "schema must be 1, not 2"),
        ("model: homography", "model: spline", "model must be one of translation, similarity"),
        ("confidence: 0.625", "confidence: 2", "confidence must be a number from 0 to 1"),
        ("confidence: 0.625", "confidence: .nan", "confidence must be a number from 0 to 1"),
        ("confidence: 0.625", "", "a transform has the keys schema, model"),
        ("first: [64, 48]", "first: [64, 48.5]", "first must be width and height"),
        ("first: [64, 48]", "first: [true, 48]", "first must be width and height"),
        ("second: [160, 120]", "second: [160]", "second must be width and height"),
        ("- [2.4, 0.1, 3.0]", "- [2.4, 0.1, x]", "matrix must have three rows of three numbers"),
        ("- [2.4, 0.1, 3.0]\n", "", "matrix must have three rows of three numbers"),
        ("- [2.4, 0.1, 3.0]", "- [.inf, 0.1, 3.0]", "matrix must have three rows of three numbers"),
        ("- [2.4, 0.1, 3.0]", "- [0, 0, 0]", "matrix must map the whole first image"),
        ("schema: 1", "- schema", "not valid YAML"),
    ],
)
def test_a_file_that_holds_something_else(tmp_path, old, new, message):
    path = tmp_path / "transform.yaml"
    save_alignment(SOME, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_alignment(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
