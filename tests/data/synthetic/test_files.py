import numpy as np
import pytest

from timfuse.data import find_pairs, is_colour, luma, make_scene, read_pixels, write_scenes
from timfuse.data.synthetic import SyntheticPairs
from timfuse.genotypes import TASKS
from timfuse.runtime.errors import UserError


def test_scenes_on_disk_are_the_scenes_and_pair_up(tmp_path):
    write_scenes(tmp_path, 2, height=40, width=56, seed=7)
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["scene_00000", "scene_00001"]
    for index, pair in enumerate(pairs):
        scene = make_scene([7, index], height=40, width=56)
        assert (read_pixels(pair.first) == scene.first).all()
        assert (read_pixels(pair.second) == scene.second).all()


@pytest.mark.parametrize("task", TASKS)
def test_pairs_on_disk_are_found_again(tmp_path, task):
    folders = write_scenes(tmp_path, 2, task=task, height=40, width=40, seed=7)
    source = SyntheticPairs(task, 2, 40, 7)
    pairs = find_pairs(tmp_path, task)
    assert tuple(pair.name for pair in pairs) == source.names
    for index, pair in enumerate(pairs):
        assert (pair.first.parent, pair.second.parent) == folders
        images = read_pixels(pair.first), read_pixels(pair.second)
        for image, grey in zip(images, source[index], strict=True):
            np.testing.assert_array_equal(luma(image), grey)
        coloured = {"mri-pet": [False, True], "mri-spect": [False, True]}
        both = [task.startswith("multi")] * 2
        assert [is_colour(image) for image in images] == coloured.get(task, both)


def test_an_unknown_task_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="task must be one of"):
        write_scenes(tmp_path / "out", 2, task="mri", height=40, width=40, seed=7)
    assert not (tmp_path / "out").exists()


def test_a_kind_that_the_task_does_not_have_writes_nothing(tmp_path):
    with pytest.raises(UserError, match=r"kind must be one of street, marked, not 'mark'.*did you mean 'marked'"):
        write_scenes(tmp_path / "out", 2, kind="mark", height=40, width=40, seed=7)
    with pytest.raises(UserError, match="kind marked is one of infrared-visible scenes; leave it out for mri-ct"):
        write_scenes(tmp_path / "out", 2, task="mri-ct", kind="marked", height=40, width=40, seed=7)
    assert not (tmp_path / "out").exists()
