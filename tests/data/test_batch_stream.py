"""Batches follow from seed and step, whoever prepares them and wherever a run starts, with and without labels."""

import multiprocessing
from collections import Counter
from collections.abc import Iterable
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from timfuse.data import BatchStream, Objects, PairBatch, SyntheticPairs, open_source, write_pixels, write_scenes
from timfuse.data.batch_stream import cut_crops, stream_batches, whole_pair
from timfuse.data.images import Pixels
from timfuse.data.masks import Mask
from timfuse.data.pair_source import JoinedPairs, Labels
from timfuse.data.window import Window
from timfuse.runtime.distribution import Ranks
from timfuse.runtime.errors import UserError

SIZE = 24


class Coordinates:
    """A source whose pixels say where they are: the first image holds rows, the second columns."""

    labels: Labels | None = None
    classes: tuple[str, ...] = ()
    unlabelled = ()

    def __init__(self, count: int) -> None:
        self.names = tuple(map(str, range(count)))

    def __len__(self) -> int:
        return len(self.names)

    def size(self, index: int) -> tuple[int, int]:
        return SIZE, SIZE

    def objects(self, index: int) -> Objects:
        raise NotImplementedError

    def mask(self, index: int) -> Mask:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return f"{len(self)} coordinates"

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        rows, columns = np.mgrid[:SIZE, :SIZE]
        return (rows + 100).astype(np.uint8), (columns + 100).astype(np.uint8)


class Numbered(Coordinates):
    """Flat pairs of two sizes whose images and labels say which pair they are; pair 0 has no object."""

    def __init__(self, count: int, labels: Labels) -> None:
        super().__init__(count)
        self.labels, self.classes = labels, tuple(self.names)

    def size(self, index: int) -> tuple[int, int]:
        return (60, 80) if index % 2 else (90, 40)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        flat = np.zeros(self.size(index), np.uint16)
        return flat + np.uint16(257 * index), (flat + 3 * index).astype(np.uint8)

    def objects(self, index: int) -> Objects:
        height, width = self.size(index)
        return Objects(torch.tensor([[0.0, 0, width, height]] * index).reshape(-1, 4), torch.arange(index))

    def mask(self, index: int) -> Mask:
        return np.full(self.size(index), index, np.uint8)


class Failing(Coordinates):
    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        if index == 3:
            raise UserError("pair 3 is gone; bring it back")
        return super().__getitem__(index)


def stream(count: int = 7, **changes: object) -> BatchStream:
    options = {"batch_size": 3, "crop": 16, "seed": 0, "name": "weight"} | changes
    return BatchStream(Coordinates(count), range(count), **options)  # type: ignore[arg-type]


def labelled(labels: Labels = "boxes", **changes: object) -> BatchStream:
    options = {"batch_size": 3, "crop": 48, "seed": 0, "name": "task", "scale": (0.75, 1.33), "upright": True} | changes
    return BatchStream(Numbered(5, labels), range(5), **options)  # type: ignore[arg-type]


def equal(left: Iterable[PairBatch], right: Iterable[PairBatch]) -> bool:
    def parts(batch: PairBatch) -> list[torch.Tensor]:
        objects = [part for each in batch.objects or () for part in each]
        return [batch.first, batch.second, *objects, *([] if batch.masks is None else [batch.masks])]

    return all(
        len(parts(a)) == len(parts(b)) and all(map(torch.equal, parts(a), parts(b)))
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("start", [0, 1, 6])
def test_workers_and_resuming_change_nothing(start: int) -> None:
    whole = list(stream_batches(stream(), 0, 9))
    assert equal(whole[start:], stream_batches(stream(), start, 9, workers=2))
    assert equal(whole[start:], stream_batches(stream(), start, 9))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_processes_share_the_batch_of_one_and_read_their_part_alone(count: int) -> None:
    whole, read = stream(batch_size=6), []

    class Reading(Coordinates):
        def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
            read.append(index)
            return super().__getitem__(index)

    for step in range(3):
        parts = []
        for rank in range(count):
            read.clear()
            options = {"batch_size": 6, "crop": 16, "seed": 0, "name": "weight"}
            parts.append(BatchStream(Reading(7), range(7), ranks=Ranks(rank, count), **options)[step])  # type: ignore[arg-type]
            assert read == whole.pairs_of(step)[rank::count]
        rows = [torch.stack([getattr(part, side) for part in parts], 1).flatten(0, 1) for side in ("first", "second")]
        assert equal([PairBatch(*rows)], [whole[step]])


@pytest.mark.parametrize("labels", ["boxes", "masks"])
def test_processes_share_labels_as_they_share_images(labels: Labels) -> None:
    whole = labelled(labels, batch_size=4)[1]
    for rank in range(2):
        part = labelled(labels, batch_size=4, ranks=Ranks(rank, 2))[1]
        expected = PairBatch(
            whole.first[rank::2],
            whole.second[rank::2],
            None if whole.objects is None else whole.objects[rank::2],
            None if whole.masks is None else whole.masks[rank::2],
        )
        assert equal([part], [expected])


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 2):
        list(stream_batches(stream(), 0, 3, workers=workers))
    assert torch.equal(before, torch.get_rng_state())


@given(count=st.integers(1, 9), batch_size=st.integers(1, 12), epochs=st.integers(1, 4))
def test_each_epoch_covers_every_pair_once(count: int, batch_size: int, epochs: int) -> None:
    indices = [10 * index for index in range(count)]
    batches = BatchStream(Coordinates(1), indices, batch_size=batch_size, crop=4, seed=1, name="x")
    steps = -(-count * epochs // batch_size)
    drawn = [index for step in range(steps) for index in batches.pairs_of(step)]
    for epoch in range(epochs):
        assert Counter(drawn[epoch * count : (epoch + 1) * count]) == Counter(indices)


def test_each_epoch_is_a_new_permutation() -> None:
    batches = BatchStream(Coordinates(1), range(20), batch_size=5, crop=4, seed=1, name="x")
    epochs = [[index for step in range(4) for index in batches.pairs_of(4 * epoch + step)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, range(20)]}) == 4


def test_what_a_seed_draws_stays_the_same() -> None:
    assert [stream().pairs_of(step) for step in range(5)] == [[0, 6, 4], [5, 3, 2], [1, 2, 1], [5, 4, 3], [0, 6, 1]]
    assert stream(4, shares=[1, 0, 2, 1], batch_size=6).pairs_of(3) == [2, 0, 2, 0, 2, 2]


def test_both_sources_are_cut_alike_and_everywhere() -> None:
    seen, corners = Counter(), set()
    for batch in stream_batches(stream(), 0, 150):
        assert batch.first.shape == batch.second.shape == (3, 1, 16, 16)
        assert batch.first.dtype == torch.float32
        rows, columns = (255 * batch.first).round() - 100, (255 * batch.second).round() - 100
        for row, column in zip(rows[:, 0], columns[:, 0], strict=True):
            vertical, horizontal = row[1, 0] < row[0, 0], column[0, 1] < column[0, 0]
            assert torch.equal(row[:, 0].sort().values, torch.arange(16) + row.min())
            assert torch.equal(column[0].sort().values, torch.arange(16) + column.min())
            assert (row == row[:, :1]).all()
            assert (column == column[:1]).all()
            seen[bool(vertical), bool(horizontal)] += 1
            corners.add((int(row.min()), int(column.min())))
    assert len(seen) == 4
    assert min(seen.values()) > 80  # of 450; 112 expected
    assert len(corners) > 65  # of 81 places


def test_seeds_and_names_make_other_streams() -> None:
    assert not equal(stream_batches(stream(), 0, 3), stream_batches(stream(seed=1), 0, 3))
    assert not equal(stream_batches(stream(), 0, 3), stream_batches(stream(name="architecture"), 0, 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_error_arrives_as_it_is(workers: int) -> None:
    failing = BatchStream(Failing(5), range(5), batch_size=5, crop=8, seed=0, name="x")
    with pytest.raises(UserError, match=r"^pair 3 is gone; bring it back$"):
        list(stream_batches(failing, 0, 4, workers=workers))
    assert not multiprocessing.active_children()


def test_leaving_early_stops_the_workers() -> None:
    batches = stream_batches(stream(), 0, 1000, workers=2)
    assert len(list(islice(batches, 2))) == 2
    assert multiprocessing.active_children()
    batches.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_moving_a_batch() -> None:
    for batch in (stream()[0], labelled("boxes")[0], labelled("masks")[0]):
        moved = batch.to("meta")
        parts = [moved.first, moved.second, *(part for each in moved.objects or () for part in each)]
        assert {part.device.type for part in (*parts, *([] if moved.masks is None else [moved.masks]))} == {"meta"}
        assert (moved.objects is None, moved.masks is None) == (batch.objects is None, batch.masks is None)


def test_pairs_are_drawn_by_their_shares() -> None:
    drawn = stream(4, batch_size=50, shares=[1, 0, 2, 1])
    counts = Counter(index for step in range(80) for index in drawn.pairs_of(step))
    assert counts[1] == 0
    assert [counts[index] / 4000 for index in (0, 2, 3)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert drawn.pairs_of(5) == stream(4, batch_size=50, shares=[2, 0, 4, 2]).pairs_of(5)
    assert equal(stream_batches(drawn, 2, 4, workers=1), list(stream_batches(drawn, 0, 4))[2:])


class Marked(Coordinates):
    """Its images are flat and say which source and pair they are of."""

    def __init__(self, count: int, mark: int) -> None:
        super().__init__(count)
        self.names = tuple(f"{mark}-{index}" for index in range(count))
        self.mark = mark

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        flat = np.zeros((SIZE, SIZE), np.uint8)
        return flat + np.uint8(self.mark), flat + np.uint8(index)


def test_joined_sources_follow_each_other() -> None:
    joined = JoinedPairs([Marked(2, 7), Marked(1, 8), Marked(3, 9)])
    assert len(joined) == 6
    assert (joined.labels, joined.classes, joined.unlabelled) == (None, (), ())
    assert joined.names == ("7-0", "7-1", "8-0", "9-0", "9-1", "9-2")
    assert joined.size(3) == (SIZE, SIZE)
    assert joined.fingerprint() != JoinedPairs([Marked(3, 7), Marked(1, 8), Marked(2, 9)]).fingerprint()
    assert [tuple(int(image[0, 0]) for image in joined[index]) for index in range(6)] == [
        (7, 0), (7, 1), (8, 0), (9, 0), (9, 1), (9, 2)
    ]  # fmt: skip


def test_joined_sources_keep_their_labels() -> None:
    boxes = JoinedPairs([Numbered(3, "boxes"), Numbered(2, "boxes")])
    assert (boxes.labels, boxes.classes) == ("boxes", ("0", "1", "2"))
    assert [len(boxes.objects(index).classes) for index in range(5)] == [0, 1, 2, 0, 1]
    masks = JoinedPairs([Numbered(3, "masks"), Numbered(2, "masks")])
    assert [int(masks.mask(index)[0, 0]) for index in range(5)] == [0, 1, 2, 0, 1]


def test_crops_are_in_the_order_of_the_pairs_and_in_the_unit_range() -> None:
    batch = cut_crops(JoinedPairs([Marked(2, 51), Marked(1, 255)]), [2, 0, 2, 1], 5, np.random.default_rng(0))
    assert batch.first.shape == batch.second.shape == (4, 1, 5, 5)
    assert batch.first[:, 0, 0, 0].tolist() == pytest.approx([1, 0.2, 1, 0.2])
    assert (255 * batch.second[:, 0, 0, 0]).tolist() == pytest.approx([0, 0, 0, 1])


@pytest.mark.parametrize("labels", ["boxes", "masks"])
def test_labelled_batches_of_scenes_whoever_prepares_them(labels: Labels) -> None:
    source = open_source(None, labels=labels, minimum_size=64, synthetic_pairs=3, seed=1)
    batches = BatchStream(source, [0, 2], batch_size=3, crop=64, seed=0, name="x", scale=(0.75, 1.33), upright=True)
    whole = list(stream_batches(batches, 0, 5))
    assert equal(whole[2:], stream_batches(batches, 2, 5, workers=2))
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
        (batch.masks > 0).any() if batch.masks is not None else any(len(each.boxes) for each in batch.objects or ())
        for batch in whole
    )


def test_pairs_come_once_an_epoch_with_their_own_labels() -> None:
    seen = Counter()
    for boxes, masks in zip(
        stream_batches(labelled("boxes"), 0, 5, workers=2), stream_batches(labelled("masks"), 0, 5), strict=True
    ):
        assert boxes.objects is not None
        assert masks.masks is not None
        assert torch.equal(boxes.first, masks.first)
        for first, second, objects, mask in zip(boxes.first, boxes.second, boxes.objects, masks.masks, strict=True):
            index = round(255 * first.mean().item())
            assert (255 * second).round().unique().tolist() == [3 * index]
            assert objects.classes.tolist() == list(range(len(objects.classes)))
            assert len(objects.classes) in (0, index)
            assert mask.unique().tolist() == [index]
            seen[index] += 1
    assert seen == {index: 3 for index in range(5)}


def test_labels_change_no_image() -> None:
    class Labelled(Coordinates):
        labels = "boxes"

        def objects(self, index: int) -> Objects:
            return Objects(torch.tensor([[0.0, 0, SIZE, SIZE]]), torch.tensor([0]))

    labelled = BatchStream(Labelled(7), range(7), batch_size=3, crop=16, seed=0, name="weight")
    for step in range(5):
        batch = labelled[step]
        assert equal([batch._replace(objects=None)], [stream()[step]])
        assert batch.objects is not None
        assert [each.boxes.tolist() for each in batch.objects] == [[[0, 0, 16, 16]]] * 3


def test_a_whole_pair_as_a_batch() -> None:
    source = Numbered(5, "boxes")
    batch = whole_pair(source, 3)
    assert batch.first.shape == batch.second.shape == (1, 1, 60, 80)
    assert batch.first.unique().tolist() == pytest.approx([3 / 255])
    assert batch.objects is not None
    assert torch.equal(batch.objects[0].boxes, source.objects(3).boxes)
    assert batch.masks is None
    masks = whole_pair(Numbered(5, "masks"), 2).masks
    assert masks is not None
    assert masks.dtype == torch.int64
    assert torch.equal(masks, torch.full((1, 90, 40), 2))
    assert whole_pair(Coordinates(1), 0)[2:] == (None, None, None)


def test_any_kind_of_item_is_streamed() -> None:
    class Squares(Dataset[tuple[int, str]]):
        def __getitem__(self, step: int) -> tuple[int, str]:
            return step**2, f"{step}"

    for workers in (0, 1):
        assert list(stream_batches(Squares(), 2, 5, workers)) == [(4, "2"), (9, "3"), (16, "4")]


def test_the_crops_of_a_batch_are_as_small_as_its_smallest_pair() -> None:
    source = JoinedPairs([SyntheticPairs("mri-ct", 2, 48, seed=0), SyntheticPairs("mri-ct", 2, 64, seed=0)])
    draw = np.random.default_rng
    assert cut_crops(source, [2, 3], 56, draw(0)).first.shape == (2, 1, 56, 56)
    assert cut_crops(source, [2, 0, 3], 56, draw(0)).second.shape == (3, 1, 48, 48)
    # What a zoom makes of a small pair is as large as the others.
    assert cut_crops(source, [2, 0], 56, draw(0), scale=(1, 1)).first.shape == (2, 1, 56, 56)


def test_colours_are_cut_with_the_images(tmp_path):
    """A luma and the colours of a batch are the coloured source again, zoomed and mirrored alike."""
    write_scenes(tmp_path, 2, height=64, width=96, seed=3)
    for file in (tmp_path / "vis").iterdir():
        write_pixels(file, np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    source = open_source(tmp_path)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        batch = cut_crops(source, [0, 1], 32, rng, scale=(0.6, 1.6), upright=True, colour="second")
        window = Window.draw(64, 96, 32, np.random.default_rng(seed), scale=(0.6, 1.6), upright=True)
        image = source.read(0)[1]
        planes = window.cut_images([image[..., channel] for channel in range(3)])
        # luma is rounded to 8 bits before it is cut
        torch.testing.assert_close(batch.second[0] + batch.colour[0], planes, atol=2e-2, rtol=0)
        assert batch.colour.abs().max() > 0.05
    whole = whole_pair(source, 1, "second")
    expected = torch.from_numpy(source.read(1)[1].transpose(2, 0, 1) / np.float32(255))
    torch.testing.assert_close(whole.second[0] + whole.colour[0], expected, atol=0.5 / 255 + 1e-6, rtol=0)
    assert whole_pair(source, 1).colour is None
    assert torch.equal(whole_pair(source, 1, "first").colour, torch.zeros(1, 3, 64, 96))
