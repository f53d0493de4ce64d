"""Windows: boxes and masks move exactly as the pixels do, and places, zooms and mirrorings are drawn evenly."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.data import Objects, unit_range
from timfuse.data.window import Window

CROP = 48


@given(
    seed=st.integers(0, 2**32),
    zoom=st.floats(0.4, 2.5),
    upright=st.booleans(),
    left=st.integers(0, 70),
    top=st.integers(0, 50),
    width=st.integers(10, 60),
    height=st.integers(10, 60),
)
def test_boxes_and_masks_move_as_the_pixels_do(
    seed: int, zoom: float, upright: bool, left: int, top: int, width: int, height: int
) -> None:
    right, bottom = min(left + width, 96), min(top + height, 72)
    mask = np.zeros((72, 96), np.uint8)
    mask[top:bottom, left:right] = 1
    window = Window.draw(72, 96, CROP, np.random.default_rng(seed), scale=(zoom, zoom), upright=upright)
    images = window.cut_images([mask * 255, (1 - mask) * np.uint16(65535)])
    cut = torch.from_numpy(window.cut_mask(mask))
    objects = window.cut_objects(Objects(torch.tensor([[left, top, right, bottom]]).float(), torch.tensor([2])))
    assert images.shape == (2, CROP, CROP)
    assert cut.shape == (CROP, CROP)
    torch.testing.assert_close(images[0], 1 - images[1], rtol=0, atol=1e-5)
    # The pixels of the painted rectangle that are in the window, whose box is kept from a quarter on.
    rows = np.clip([top - window.top, bottom - window.top], 0, window.side)
    columns = np.clip([left - window.left, right - window.left], 0, window.side)
    seen = int(np.diff(rows).item() * np.diff(columns).item())
    assert len(objects.boxes) == len(objects.classes) == (4 * seen >= (right - left) * (bottom - top))
    if len(objects.boxes) == 0:
        return
    scale = CROP / window.side
    assert (objects.boxes[0, 2:] - objects.boxes[0, :2]).prod().item() == pytest.approx(seen * scale**2, rel=1e-4)
    # A pixel's centre in the box is a pixel of the rectangle, but for the blur at its edges.
    centres, band = torch.arange(CROP) + 0.5, max(1.0, scale)
    inside, near = [], []
    for axis in (1, 0):
        start, stop = objects.boxes[0, axis].item(), objects.boxes[0, axis + 2].item()
        inside.append((centres > start) & (centres < stop))
        # The edges of the crop are no edges of the rectangle.
        edges = [edge for edge in (start, stop) if 1e-3 < edge < CROP - 1e-3]
        near.append(sum(((centres - edge).abs() < band for edge in edges), torch.zeros(CROP, dtype=torch.bool)))
    expected = inside[0][:, None] & inside[1]
    certain = ~(near[0][:, None] | near[1])
    assert torch.equal((images[0] > 0.5)[certain], expected[certain])
    assert torch.equal((cut == 1)[certain], expected[certain])
    # The mask is that of pixel centres, wherever these do not fall on an edge.
    for axis, there in ((1, cut.amax(1)), (0, cut.amax(0))):
        found = there.nonzero().flatten()
        if len(found):
            assert abs(found[0].item() - objects.boxes[0, axis].item()) <= 0.5 + 1e-3
            assert abs(found[-1].item() + 1 - objects.boxes[0, axis + 2].item()) <= 0.5 + 1e-3


@given(seed=st.integers(0, 2**32), zoom=st.floats(0.3, 3), axis=st.sampled_from(["horizontal", "vertical"]))
def test_mirroring_twice_changes_nothing(seed: int, zoom: float, axis: str) -> None:
    rng = np.random.default_rng(seed)
    drawn = Window.draw(50, 60, CROP, rng, scale=(zoom, zoom))
    straight = Window(drawn.top, drawn.left, drawn.side, CROP)
    mirrored = Window(drawn.top, drawn.left, drawn.side, CROP, axis == "horizontal", axis == "vertical")
    image = rng.integers(256, size=(50, 60), dtype=np.uint8)
    place = -1 if axis == "horizontal" else -2
    assert torch.equal(mirrored.cut_images([image]).flip(place), straight.cut_images([image]))
    assert np.array_equal(np.flip(mirrored.cut_mask(image), place), straight.cut_mask(image))
    corners = rng.uniform(0, 25, (6, 2, 2)).cumsum(1).reshape(6, 4)
    objects = Objects(torch.from_numpy(corners).float(), torch.arange(6))
    before = objects.boxes.clone()
    once, plain = mirrored.cut_objects(objects), straight.cut_objects(objects)
    assert torch.equal(objects.boxes, before)  # what is in memory is not changed
    left, top, right, bottom = once.boxes.unbind(1)
    if axis == "horizontal":
        again = torch.stack([CROP - right, top, CROP - left, bottom], 1)
    else:
        again = torch.stack([left, CROP - bottom, right, CROP - top], 1)
    assert torch.equal(once.classes, plain.classes)
    torch.testing.assert_close(again, plain.boxes, rtol=0, atol=1e-4)


def test_objects_of_which_little_is_seen_are_left_out() -> None:
    window = Window(top=0, left=30, side=20, crop=40)
    boxes = torch.tensor([[24.0, 0, 32, 4], [24, 0, 31.9, 4], [0, 0, 10, 10], [45, 15, 55, 25], [20, -10, 60, 30]])
    moved = window.cut_objects(Objects(boxes, torch.arange(5)))
    assert moved.classes.tolist() == [0, 3, 4]  # the first and the fourth with exactly a quarter
    assert moved.boxes.tolist() == [[0, 0, 4, 8], [30, 30, 40, 40], [0, 0, 40, 40]]
    none = window.cut_objects(Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    assert (none.boxes.shape, none.classes.dtype) == ((0, 4), torch.int64)


def test_windows_fit_and_their_zoom_is_spread_evenly_in_its_logarithm() -> None:
    rng = np.random.default_rng(0)
    windows = [Window.draw(300, 400, 128, rng, scale=(0.5, 2.0), upright=True) for _ in range(2000)]
    assert all(window.top + window.side <= 300 and window.left + window.side <= 400 for window in windows)
    quarters = np.histogram(np.log2([128 / window.side for window in windows]), bins=[-1.1, -0.5, 0, 0.5, 1.1])[0]
    assert quarters.min() > 430  # 500 expected
    assert 900 < sum(window.horizontal_flip for window in windows) < 1100
    assert not any(window.vertical_flip for window in windows)
    small = [Window.draw(100, 90, 96, rng, scale=(0.5, 2.0)) for _ in range(200)]
    assert max(window.side for window in small) == 90
    assert {window.left for window in small if window.side == 90} == {0}


def test_shrinking_averages_and_no_zoom_copies() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    lines = np.zeros((64, 64), np.uint8)
    lines[:, ::4] = 255  # samples between pixels 1 and 2 would not see them
    shrunk = Window(0, 0, 64, 16).cut_images([lines])
    torch.testing.assert_close(shrunk[:, :, 1:-1], torch.full((1, 16, 14), 0.25))
    same = Window(3, 5, 16, 16, horizontal_flip=True).cut_images([checks])[0]
    assert torch.equal(255 * same, torch.from_numpy(checks[3:19, 5:21][:, ::-1].astype(np.float32)))


def test_without_zoom_the_pixels_are_copied() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(256, size=(40, 50), dtype=np.uint8), rng.integers(2**16, size=(40, 50), dtype=np.uint16)]
    for _ in range(20):
        window = Window.draw(40, 50, 16, rng)
        rows, columns = (
            slice(None, None, -1 if flip else 1) for flip in (window.vertical_flip, window.horizontal_flip)
        )
        place = slice(window.top, window.top + 16), slice(window.left, window.left + 16)
        for cut, image in zip(window.cut_images(images), images, strict=True):
            assert np.array_equal(cut.numpy(), unit_range(image[place][rows, columns]))


def test_a_window_as_large_as_the_image() -> None:
    window = Window.draw(8, 8, 8, np.random.default_rng(0))
    assert (window.top, window.left) == (0, 0)
    assert window.cut_images([np.arange(64, dtype=np.uint8).reshape(8, 8)]).shape == (1, 8, 8)


def test_the_order_of_the_draws() -> None:
    """What a seed draws stays the same: zoom if asked for, place, then the mirrorings."""
    rng, same = np.random.default_rng(7), np.random.default_rng(7)
    top, left = same.integers(21), same.integers(31)
    horizontal, vertical = same.integers(2, size=2)
    assert Window.draw(36, 46, 16, rng) == Window(top, left, 16, 16, bool(horizontal), bool(vertical))
    side = round(16 / math.exp(same.uniform(math.log(0.5), math.log(2.0))))
    top, left, flip = same.integers(37 - side), same.integers(47 - side), bool(same.integers(2))
    assert Window.draw(36, 46, 16, rng, scale=(0.5, 2.0), upright=True) == Window(top, left, side, 16, flip, False)
    assert rng.random() == same.random()
