"""Synthetic scenes: reproducible, consistently labelled, and with the physics that fusion lives on."""

import numpy as np
import pytest
import torch

from timfuse.data import BatchStream, SyntheticPairs, make_scene
from timfuse.data.batch_stream import stream_batches

SCENES = [make_scene(seed, height=96, width=128) for seed in range(60)]


def test_a_scene_is_a_function_of_its_seed() -> None:
    again = make_scene(3, height=96, width=128)
    for field in ("first", "second", "boxes", "classes", "mask"):
        np.testing.assert_array_equal(getattr(SCENES[3], field), getattr(again, field))
    assert not np.array_equal(SCENES[3].first, SCENES[4].first)


def test_shapes_and_types() -> None:
    for scene in SCENES:
        assert scene.first.shape == scene.second.shape == scene.mask.shape == (96, 128)
        assert scene.first.dtype == scene.second.dtype == scene.mask.dtype == np.uint8
        assert scene.boxes.shape == (len(scene.classes), 4)


def test_boxes_and_mask_tell_the_same_story() -> None:
    for scene in SCENES:
        covered = np.zeros_like(scene.mask, bool)
        for (left, top, right, bottom), kind in zip(scene.boxes.astype(int), scene.classes, strict=True):
            assert 0 <= left < right <= 128
            assert 0 <= top < bottom <= 96
            inside = scene.mask[top:bottom, left:right] == kind + 1
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()  # the box is tight
            covered[top:bottom, left:right] = True
        assert not scene.mask[~covered].any()


def test_all_classes_occur() -> None:
    kinds = np.concatenate([scene.classes for scene in SCENES])
    assert (np.bincount(kinds, minlength=3) > 10).all()


def test_people_are_warm_and_often_hard_to_see() -> None:
    infrared, visible = [], []
    for scene in SCENES:
        person = scene.mask == 1
        if person.sum() > 30:
            rows, columns = np.nonzero(person)
            around = np.zeros_like(person)
            around[max(0, rows.min() - 4) : rows.max() + 5, max(0, columns.min() - 4) : columns.max() + 5] = True
            around &= scene.mask == 0
            for image, differences in ((scene.first, infrared), (scene.second, visible)):
                differences.append(image[person].mean() - image[around].mean())
    assert np.mean(np.array(infrared) > 10) > 0.85
    assert np.median(infrared) > 30
    assert np.median(np.abs(visible)) < np.median(infrared)


def test_the_sources_are_aligned_and_complementary() -> None:
    """Of the strongest tenth of one's edges more than chance are the other's too, but far from all."""

    def strongest(image: np.ndarray) -> np.ndarray:
        down, across = np.gradient(image.astype(float))
        edges = np.hypot(down, across)
        return edges > np.quantile(edges, 0.9)

    shared = np.median([strongest(s.second)[strongest(s.first)].mean() for s in SCENES])
    assert 0.2 < shared < 0.7


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 70), (200, 40)])
def test_any_size(height: int, width: int) -> None:
    for seed in range(8):
        scene = make_scene(seed, height=height, width=width)
        assert scene.first.shape == scene.mask.shape == (height, width)


def test_scenes_feed_a_stream() -> None:
    source = SyntheticPairs("infrared-visible", 6, 48, seed=0)
    stream = BatchStream(source, range(4), batch_size=2, crop=32, seed=0, name="weight")
    batches = list(stream_batches(stream, 0, 3, workers=2))
    assert all(batch.first.min() >= 0 and batch.second.max() <= 1 for batch in batches)
    assert torch.equal(batches[1].first, stream[1].first)
