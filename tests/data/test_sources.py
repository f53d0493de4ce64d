from pathlib import Path

import numpy as np
import pytest

from timfuse.data import open_source, write_pixels
from timfuse.genotypes import TASKS
from timfuse.runtime.errors import UserError


def test_synthetic_scenes_are_large_enough_and_follow_the_seed() -> None:
    for minimum, size in ((64, 128), (200, 200)):
        source = open_source(None, minimum_size=minimum, synthetic_pairs=2, seed=3)
        assert len(source) == 2
        assert source[0][0].shape == (size, size)
    images = [open_source(None, minimum_size=64, synthetic_pairs=2, seed=seed)[0][1] for seed in (3, 3, 4)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("task", TASKS)
def test_there_are_synthetic_pairs_of_every_task(task: str) -> None:
    source = open_source(None, task=task, minimum_size=64, synthetic_pairs=2, seed=3)
    assert [image.shape for image in source[1]] == [(128, 128)] * 2
    assert list(source.names) == sorted(source.names)


def test_no_synthetic_pairs_of_what_is_unknown() -> None:
    with pytest.raises(UserError, match=r"task must be one of .*, not 'mri'"):
        open_source(None, task="mri", minimum_size=64, synthetic_pairs=2, seed=0)
    with pytest.raises(UserError, match="the folders a and b of mine belong to no data set; give its folder as root"):
        open_source(None, task="mine", folders=("a", "b"), minimum_size=64, synthetic_pairs=2, seed=0)


def test_two_named_folders_are_read_whatever_the_task(tmp_path: Path) -> None:
    for side in ("t1", "t2"):
        write_pixels(tmp_path / side / "one.png", np.full((40, 50), 9, np.uint8))
    source = open_source(tmp_path, task="mine", folders=("t1", "t2"), minimum_size=32, synthetic_pairs=2, seed=0)
    assert (source.names, source[0][0].shape) == (("one",), (40, 50))


def test_a_folder_of_a_task_is_read_and_checked(tmp_path: Path) -> None:
    for side in ("near", "far"):
        write_pixels(tmp_path / side / "one.png", np.full((40, 50), 9, np.uint8))
    source = open_source(tmp_path, task="multi-focus", minimum_size=32, synthetic_pairs=2, seed=0)
    assert (source.names, source[0][0].shape) == (("one",), (40, 50))
    with pytest.raises(UserError, match="the minimum is 64x64"):
        open_source(tmp_path, task="multi-focus", minimum_size=64, synthetic_pairs=2, seed=0)
    with pytest.raises(UserError):
        open_source(tmp_path, minimum_size=32, synthetic_pairs=2, seed=0)
