"""The labelled stream: boxes and masks move exactly as the pixels do, and every batch follows from seed and step."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.data import (
    LabelledBatch,
    LabelledPairs,
    LabelledStream,
    Objects,
    Pixels,
    ZoomedWindow,
    labelled_batch,
    open_labelled,
    stream_batches,
)
from timfuse.runtime.distribution import Ranks

CROP = 48


class Numbered:
    """Flat pairs whose images say which they are, of two sizes; the first has no object."""

    names = tuple(map(str, range(5)))

    def __len__(self) -> int:
        return len(self.names)

    def size(self, index: int) -> tuple[int, int]:
        return (60, 80) if index % 2 else (90, 40)

    def fingerprint(self) -> str:
        return "numbered"

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        flat = np.zeros(self.size(index), np.uint16)
        return flat + np.uint16(257 * index), (flat + 3 * index).astype(np.uint8)


def numbered() -> LabelledPairs:
    objects = [
        Objects(torch.tensor([[0.0, 0, 80, 60]] * index).reshape(-1, 4), torch.arange(index)) for index in range(5)
    ]
    return LabelledPairs(Numbered(), tuple("abcde"), objects=objects)


def stream(**changes: object) -> LabelledStream:
    options = {"batch_size": 3, "crop": CROP, "seed": 0, "name": "weight", "labels": "boxes"} | changes
    return LabelledStream(numbered(), range(5), **options)  # type: ignore[arg-type]


def equal(left: Iterable[LabelledBatch], right: Iterable[LabelledBatch]) -> bool:
    def parts(batch: LabelledBatch) -> list[torch.Tensor]:
        objects = [part for each in batch.objects or () for part in each]
        return [batch.first, batch.second, *objects, *([] if batch.masks is None else [batch.masks])]

    return all(
        len(parts(a)) == len(parts(b)) and all(map(torch.equal, parts(a), parts(b)))
        for a, b in zip(left, right, strict=True)
    )


def test_processes_share_the_batch_of_one() -> None:
    whole = stream(batch_size=4)[1]
    assert whole.objects is not None
    for rank in range(2):
        part = stream(batch_size=4, ranks=Ranks(rank, 2))[1]
        expected = LabelledBatch(whole.first[rank::2], whole.second[rank::2], objects=whole.objects[rank::2])
        assert equal([part], [expected])


@given(
    seed=st.integers(0, 2**32),
    zoom=st.floats(0.4, 2.5),
    left=st.integers(0, 70),
    top=st.integers(0, 50),
    width=st.integers(10, 60),
    height=st.integers(10, 60),
)
def test_boxes_and_masks_move_as_the_pixels_do(
    seed: int, zoom: float, left: int, top: int, width: int, height: int
) -> None:
    right, bottom = min(left + width, 96), min(top + height, 72)
    mask = np.zeros((72, 96), np.uint8)
    mask[top:bottom, left:right] = 1
    window = ZoomedWindow.draw(72, 96, CROP, (zoom, zoom), np.random.default_rng(seed))
    images = window.cut_images([mask * 255, (1 - mask) * np.uint16(65535)])
    cut = torch.from_numpy(window.cut_mask(mask))
    objects = window.move_objects(Objects(torch.tensor([[left, top, right, bottom]]).float(), torch.tensor([2])))
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


@given(seed=st.integers(0, 2**32), zoom=st.floats(0.3, 3))
def test_mirroring_twice_changes_nothing(seed: int, zoom: float) -> None:
    rng = np.random.default_rng(seed)
    straight = ZoomedWindow.draw(50, 60, CROP, (zoom, zoom), rng)
    straight = ZoomedWindow(straight.top, straight.left, straight.side, CROP, flip=False)
    mirrored = ZoomedWindow(straight.top, straight.left, straight.side, CROP, flip=True)
    image = rng.integers(256, size=(50, 60), dtype=np.uint8)
    assert torch.equal(mirrored.cut_images([image]).flip(2), straight.cut_images([image]))
    assert np.array_equal(mirrored.cut_mask(image)[:, ::-1], straight.cut_mask(image))
    corners = rng.uniform(0, 25, (6, 2, 2)).cumsum(1).reshape(6, 4)
    objects = Objects(torch.from_numpy(corners).float(), torch.arange(6))
    before = objects.boxes.clone()
    once, plain = mirrored.move_objects(objects), straight.move_objects(objects)
    assert torch.equal(objects.boxes, before)  # what is in memory is not changed
    left, top, right, bottom = once.boxes.unbind(1)
    again = torch.stack([CROP - right, top, CROP - left, bottom], 1)
    assert torch.equal(once.classes, plain.classes)
    torch.testing.assert_close(again, plain.boxes, rtol=0, atol=1e-4)


def test_objects_of_which_little_is_seen_are_left_out() -> None:
    window = ZoomedWindow(top=0, left=30, side=20, crop=40, flip=False)
    boxes = torch.tensor([[24.0, 0, 32, 4], [24, 0, 31.9, 4], [0, 0, 10, 10], [45, 15, 55, 25], [20, -10, 60, 30]])
    moved = window.move_objects(Objects(boxes, torch.arange(5)))
    assert moved.classes.tolist() == [0, 3, 4]  # the first and the fourth with exactly a quarter
    assert moved.boxes.tolist() == [[0, 0, 4, 8], [30, 30, 40, 40], [0, 0, 40, 40]]
    none = window.move_objects(Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    assert (none.boxes.shape, none.classes.dtype) == ((0, 4), torch.int64)


def test_windows_fit_and_their_zoom_is_spread_evenly_in_its_logarithm() -> None:
    rng = np.random.default_rng(0)
    windows = [ZoomedWindow.draw(300, 400, 128, (0.5, 2.0), rng) for _ in range(2000)]
    assert all(window.top + window.side <= 300 and window.left + window.side <= 400 for window in windows)
    quarters = np.histogram(np.log2([128 / window.side for window in windows]), bins=[-1.1, -0.5, 0, 0.5, 1.1])[0]
    assert quarters.min() > 430  # 500 expected
    assert 900 < sum(window.flip for window in windows) < 1100
    small = [ZoomedWindow.draw(100, 90, 96, (0.5, 2.0), rng) for _ in range(200)]
    assert max(window.side for window in small) == 90
    assert {window.left for window in small if window.side == 90} == {0}


def test_shrinking_averages_and_no_zoom_copies() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    lines = np.zeros((64, 64), np.uint8)
    lines[:, ::4] = 255  # samples between pixels 1 and 2 would not see them
    shrunk = ZoomedWindow(0, 0, 64, 16, flip=False).cut_images([lines])
    torch.testing.assert_close(shrunk[:, :, 1:-1], torch.full((1, 16, 14), 0.25))
    same = ZoomedWindow(3, 5, 16, 16, flip=True).cut_images([checks])[0]
    assert torch.equal(255 * same, torch.from_numpy(checks[3:19, 5:21][:, ::-1].astype(np.float32)))


@pytest.mark.parametrize("labels", ["boxes", "masks"])
def test_workers_and_resuming_change_nothing(labels: str) -> None:
    source = open_labelled(None, labels, minimum_size=64, synthetic_pairs=3, seed=1)  # type: ignore[arg-type]
    batches = LabelledStream(source, [0, 2], batch_size=3, crop=64, seed=0, name="x", labels=labels)  # type: ignore[arg-type]
    whole = list(stream_batches(batches, 0, 5))
    assert equal(whole[2:], stream_batches(batches, 2, 5, workers=2))
    assert equal(whole[4:], [batches[4]])
    assert not equal(whole[:1], whole[1:2])
    for batch in whole:
        assert batch.first.shape == batch.second.shape == (3, 1, 64, 64)
        assert batch.first.dtype == torch.float32
        if labels == "masks":
            assert batch.objects is None
            assert batch.masks is not None
            assert (batch.masks.shape, batch.masks.dtype) == ((3, 64, 64), torch.int64)
        else:
            assert batch.masks is None
            assert batch.objects is not None
            assert len(batch.objects) == 3
    assert any(
        (batch.masks > 0).any() if labels == "masks" else any(len(o.boxes) for o in batch.objects) for batch in whole
    )


def test_pairs_come_once_an_epoch_with_their_own_labels() -> None:
    seen = Counter()
    for batch in stream_batches(stream(), 0, 5, workers=2):
        assert batch.objects is not None
        for first, second, objects in zip(batch.first, batch.second, batch.objects, strict=True):
            index = round(255 * first.mean().item())
            assert (255 * second).round().unique().tolist() == [3 * index]
            assert objects.classes.tolist() == list(range(len(objects.classes)))
            assert len(objects.classes) in (0, index)
            seen[index] += 1
    assert seen == {index: 3 for index in range(5)}


def test_seeds_and_names_make_other_streams() -> None:
    assert not equal(stream_batches(stream(), 0, 3), stream_batches(stream(seed=1), 0, 3))
    assert not equal(stream_batches(stream(), 0, 3), stream_batches(stream(name="architecture"), 0, 3))


def test_a_whole_pair_as_a_batch() -> None:
    source = numbered()
    batch = labelled_batch(source, 3, "boxes")
    assert batch.first.shape == batch.second.shape == (1, 1, 60, 80)
    assert batch.first.unique().tolist() == pytest.approx([3 / 255])
    assert batch.objects is not None
    assert torch.equal(batch.objects[0].boxes, source.objects(3).boxes)
    scenes = open_labelled(None, "masks", minimum_size=64, synthetic_pairs=1, seed=1)
    masks = labelled_batch(scenes, 0, "masks").masks
    assert masks is not None
    assert masks.dtype == torch.int64
    assert np.array_equal(masks[0].numpy(), scenes.mask(0))
