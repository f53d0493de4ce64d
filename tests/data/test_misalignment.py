"""The warning that pairs look misaligned."""

import numpy as np
import pytest

from timfuse.data import make_scene, open_source, read_pixels, write_pixels, write_scenes
from timfuse.data.misalignment import misalignment


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(seed, height=150, width=200) for seed in range(4)]


@pytest.mark.parametrize("count", [1, 4])
def test_a_shift_is_seen_and_aligned_pairs_are_left_alone(scenes, count):
    assert misalignment([(scene.first, scene.second) for scene in scenes[:count]]) == ""
    moved = [(scene.first[9:, :-6], scene.second[:-9, 6:]) for scene in scenes[:count]]
    assert "at a shift of 9 px" in misalignment(moved)


def test_noise_and_small_or_no_images_say_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (8, 80, 100), dtype=np.uint8)
    assert misalignment(list(zip(noise[:4], noise[4:], strict=True))) == ""
    assert misalignment([(noise[0, :20, :20], noise[0, 5:25, :20])]) == ""
    assert misalignment([]) == ""


@pytest.mark.filterwarnings("error")
def test_pairs_that_share_too_little_at_every_shift_say_nothing():
    left, right = np.random.default_rng(0).integers(1, 256, (2, 2, 80, 100), dtype=np.uint8)
    left[:, :, 50:], right[:, :, :50] = 0, 0  # black that a warp left, which needs opposite shifts in the two pairs
    assert misalignment([(left[0], right[0]), (right[1], left[1])]) == ""


def test_a_data_set_is_looked_at_when_it_is_opened(tmp_path, capsys):
    write_scenes(tmp_path, 5, height=120, width=160, seed=0)
    open_source(tmp_path)
    assert "warning" not in capsys.readouterr().err
    for file in (tmp_path / "vis").iterdir():
        write_pixels(file, np.roll(read_pixels(file), 8, 1))
    open_source(tmp_path)
    assert f"warning: {tmp_path}: the edges agree best at a shift of 8 px (in 4 pairs" in capsys.readouterr().err
