"""Drawn labels: boxes where they are, in the colours of their classes, with names that stay in the image."""

import numpy as np
import pytest
import torch

from timfuse.data import Objects
from timfuse.data.pair_batch import IGNORED
from timfuse.downstream import Detections
from timfuse.downstream.label_drawing import COLOURS, with_labels


def grey(height, width):
    return np.full((height, width, 3), 90, np.uint8)


def detections(*rows):
    """Detections of rows of left, top, right, bottom, score, class."""
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].long())


def changed(image):
    return (image != 90).any(axis=-1)


def test_boxes_are_outlined_in_the_colours_of_their_classes():
    image = grey(40, 50)
    drawn = with_labels(image, Objects(torch.tensor([[10.0, 5, 20, 25], [30, 0, 50, 40]]), torch.tensor([1, 8])))
    expected = grey(40, 50)
    for (left, top, right, bottom), colour in (((10, 5, 20, 25), COLOURS[1]), ((30, 0, 50, 40), COLOURS[1])):
        inside = expected[top + 1 : bottom - 1, left + 1 : right - 1].copy()
        expected[top:bottom, left:right] = colour
        expected[top + 1 : bottom - 1, left + 1 : right - 1] = inside
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(image, grey(40, 50))  # the image itself is left alone


def test_weak_detections_are_not_drawn_and_the_best_lies_on_top():
    drawn = with_labels(
        grey(40, 50), detections((5, 5, 20, 20, 0.9, 0), (5, 5, 20, 20, 0.3, 1), (30, 5, 40, 20, 0.29, 2))
    )
    assert tuple(drawn[5, 5]) == COLOURS[0]
    assert not changed(drawn)[:, 21:].any()
    np.testing.assert_array_equal(with_labels(grey(9, 9), detections()), grey(9, 9))


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((30, 60, 60, 90), (45, 60), (30, 110)),
        ((100, 0, 120, 30), (0, 16), (60, 120)),
        ((0, 96, 9, 100), (80, 96), (0, 80)),
    ],
    ids=["above", "within, moved left", "above a small one"],
)
def test_names_stand_above_their_box_or_within_and_never_outside_the_image(box, rows, columns):
    found = detections((*box, 0.75, 4))
    plain, named = with_labels(grey(100, 120), found), with_labels(grey(100, 120), found, ["person"] * 5)
    where = np.argwhere((plain != named).any(axis=-1))
    assert len(where) > 300
    assert (where.min(axis=0) >= (rows[0], columns[0])).all()
    assert (where.max(axis=0) < (rows[1], columns[1])).all()
    colours = named[tuple(where.T)]
    assert (colours == COLOURS[4]).all(axis=1).mean() > 0.5  # the ground of the letters
    assert colours.max(axis=1).min() < 100  # black letters on yellow


def test_names_that_do_not_fit_are_left_out():
    found = detections((10, 20, 30, 30, 0.9, 0))
    plain = with_labels(grey(40, 60), found)
    np.testing.assert_array_equal(with_labels(grey(40, 60), found, ["a name that is too long"]), plain)
    assert (with_labels(grey(40, 60), found, ["one"]) != plain).any()


def test_objects_have_names_without_scores():
    objects = Objects(torch.tensor([[10.0, 40, 60, 60]]), torch.tensor([0]))
    sure = detections((10, 40, 60, 60, 1.0, 0))
    widths = [changed(with_labels(grey(80, 200), each, ["car"]))[:40].any(axis=0).sum() for each in (objects, sure)]
    assert 10 < widths[0] < widths[1]


def test_classes_of_a_mask_are_tinted():
    mask = torch.tensor([[0, 1, 2, 7, 8, IGNORED]])
    drawn = with_labels(grey(1, 6), mask)[0]
    np.testing.assert_array_equal(drawn[[0, 5]], grey(1, 2)[0])
    for place, colour in ((1, 0), (2, 1), (3, 6), (4, 0)):
        assert np.abs(drawn[place] - (90 + np.array(COLOURS[colour])) / 2).max() <= 0.5
