from pathlib import Path

import numpy as np
import pytest

from timfuse.data import open_source, write_pixels
from timfuse.runtime.errors import UserError


def test_synthetic_scenes_are_large_enough_and_follow_the_seed() -> None:
    for minimum, size in ((64, 128), (200, 200)):
        source = open_source(None, minimum_size=minimum, synthetic_pairs=2, seed=3)
        assert len(source) == 2
        assert source[0][0].shape == (size, size)
    images = [open_source(None, minimum_size=64, synthetic_pairs=2, seed=seed)[0][1] for seed in (3, 3, 4)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_there_are_no_scenes_of_other_tasks() -> None:
    with pytest.raises(
        UserError, match=r"no synthetic scenes for mri-pet; give the folder of a data set as data\.root"
    ):
        open_source(None, task="mri-pet", minimum_size=64, synthetic_pairs=2, seed=0)


def test_a_folder_of_a_task_is_read_and_checked(tmp_path: Path) -> None:
    for side in ("near", "far"):
        write_pixels(tmp_path / side / "one.png", np.full((40, 50), 9, np.uint8))
    source = open_source(tmp_path, task="multi-focus", minimum_size=32, synthetic_pairs=2, seed=0)
    assert (source.names, source[0][0].shape) == (("one",), (40, 50))
    with pytest.raises(UserError, match="the minimum is 64x64"):
        open_source(tmp_path, task="multi-focus", minimum_size=64, synthetic_pairs=2, seed=0)
    with pytest.raises(UserError):
        open_source(tmp_path, minimum_size=32, synthetic_pairs=2, seed=0)
