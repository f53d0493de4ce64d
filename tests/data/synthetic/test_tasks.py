"""The synthetic pairs of every task as a source, with names that tell what looks alike."""

import numpy as np
import pytest

from timfuse.data import BatchStream, SyntheticPairs, luma, make_exposures, make_focus, make_phantom, make_scene
from timfuse.data.pair_source import Labels
from timfuse.genotypes import TASKS
from timfuse.runtime.errors import UserError


@pytest.mark.parametrize("task", TASKS)
def test_a_source_of_luma_pairs(task: str) -> None:
    source = SyntheticPairs(task, 3, 48, seed=1)
    for first, second in (source[index] for index in range(3)):
        assert first.shape == second.shape == (48, 48)
        assert first.dtype == second.dtype == np.uint8
    assert source[2] is source[2]  # rendered once
    assert not np.array_equal(source[0][0], SyntheticPairs(task, 3, 48, seed=2)[0][0])
    with pytest.raises(IndexError):
        source[3]
    batch = BatchStream(source, range(3), batch_size=2, crop=32, seed=0, name="all")[0]
    assert batch.first.shape == batch.second.shape == (2, 1, 32, 32)


@pytest.mark.parametrize("labels", [None, "boxes", "masks"])
def test_infrared_visible_pairs_are_the_scenes(labels: Labels | None) -> None:
    pairs = SyntheticPairs("infrared-visible", 3, 40, seed=4, labels=labels)
    for index in range(3):
        scene = make_scene([4, index], height=40, width=40)
        for image, same in zip(pairs[index], (scene.first, scene.second), strict=True):
            np.testing.assert_array_equal(image, same)
        if labels == "boxes":
            np.testing.assert_array_equal(pairs.objects(index).boxes, scene.boxes)
            np.testing.assert_array_equal(pairs.objects(index).classes, scene.classes)
        if labels == "masks":
            np.testing.assert_array_equal(pairs.mask(index), scene.mask)
    with pytest.raises(IndexError):
        pairs[3]


def test_the_other_pairs_are_those_of_their_makers() -> None:
    shape = {"height": 40, "width": 40}
    expected = {
        "multi-exposure": make_exposures([4, 1], **shape),
        "multi-focus": make_focus([4, 1], **shape),
        "mri-pet": make_phantom([4, 0], modality="pet", level=0.3, **shape),
    }
    for task, pair in expected.items():
        for image, same in zip(SyntheticPairs(task, 2, 40, seed=4)[1], pair, strict=True):
            np.testing.assert_array_equal(image, luma(same))


@pytest.mark.parametrize("task", TASKS)
def test_names_are_distinct_and_sort_as_they_come(task: str) -> None:
    names = SyntheticPairs(task, 700, 32, seed=0).names
    assert list(names) == sorted(set(names))


def test_names_of_slices_are_patient_and_slice() -> None:
    names = SyntheticPairs("mri-ct", 14, 32, seed=0).names
    assert names[:7] == ("101008", "101012", "101016", "101020", "101024", "101028", "102008")
    assert [len({name[:-3] for name in names[start : start + 6]}) for start in (0, 6)] == [1, 1]


def test_an_unknown_task_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"task must be one of infrared-visible, .*not 'mri-pt' .did you mean 'mri-pet'"
    ):
        SyntheticPairs("mri-pt", 2, 32, seed=0)
