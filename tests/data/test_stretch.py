"""Images of sensor counts and temperatures: they are recognised, refused, and stretched when asked."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from timfuse.data import find_pairs, match_pairs, open_pairs
from timfuse.data.stretch import Stretch, find_stretch
from timfuse.runtime.errors import UserError

RAMP = np.linspace(0, 1, 48 * 64).reshape(48, 64)


def write(folder: Path, count: int, low: float, high: float, dtype: type) -> None:
    """A data set whose thermal images are ramps from `low` to `high`."""
    for index in range(count):
        for side in ("ir", "vis"):
            (folder / side).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / "ir" / f"{index}.tif", (low + (high - low) * RAMP).astype(dtype))
        Image.fromarray((255 * RAMP).astype(np.uint8)).save(folder / "vis" / f"{index}.png")


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (7300, 8200, np.uint16),
        (0, 16383, np.uint16),
        (29000, 31000, np.uint16),
        (-10, 40, np.float32),
        (-9, 9, np.int16),
    ],
)
def test_counts_and_temperatures_are_refused_in_every_command_and_stretched_when_asked(
    tmp_path: Path, low: float, high: float, dtype: type
) -> None:
    write(tmp_path, 3, low, high, dtype)
    for find in (
        lambda **settings: find_pairs(tmp_path, **settings),
        lambda **settings: match_pairs(tmp_path / "ir", tmp_path / "vis", **settings),
        lambda **settings: (
            open_pairs([tmp_path], task="infrared-visible", minimum_size=16, **settings).sets[0].source.pairs
        ),
    ):
        with pytest.raises(UserError, match=r"ir: images of more than 8 bits hold values from .*with --stretch$"):
            find()
        first, second = find(stretch=True)[1].read()
        assert (first.dtype, int(first.min()), int(first.max())) == (np.uint16, 0, 65535)
        np.testing.assert_allclose(first / 65535, RAMP, atol=0.06 if dtype == np.int16 else 0.02)
        np.testing.assert_array_equal(second, (255 * RAMP).astype(np.uint8))


def test_the_limits_are_those_of_the_folder_not_of_an_image(tmp_path: Path) -> None:
    write(tmp_path, 4, 7000, 8000, np.uint16)
    tifffile.imwrite(tmp_path / "ir" / "3.tif", np.full((48, 64), 9000, np.uint16))
    pairs = find_pairs(tmp_path, stretch=True)
    assert {pair.stretches for pair in pairs} == {(pairs[0].stretches[0], None)}
    assert pairs[0].stretches[0] == pytest.approx((7003, 9000), abs=5)
    assert int(pairs[0].read()[0].max()) == pytest.approx(32700, abs=300)


def test_the_parts_of_a_listed_folder_have_the_same_limits(tmp_path: Path) -> None:
    write(tmp_path, 4, 7000, 8000, np.uint16)
    tifffile.imwrite(tmp_path / "ir" / "3.tif", np.full((48, 64), 9000, np.uint16))
    (tmp_path / "train.txt").write_text("0\n1\n2\n")
    (tmp_path / "val.txt").write_text("3\n")
    limits = [find_pairs(tmp_path, split=part, stretch=True)[0].stretches for part in (None, "train", "val")]
    assert limits[0] == limits[1] == limits[2]


def test_a_dead_pixel_neither_hides_raw_counts_nor_moves_their_limits(tmp_path: Path) -> None:
    counts = (7300 + 900 * RAMP).astype(np.uint16)
    counts[5, 5], counts[9, 9] = 65535, 0
    tifffile.imwrite(tmp_path / "a.tif", counts)
    with pytest.raises(UserError, match="hold values from 730"):
        find_stretch([tmp_path / "a.tif"], "colour", stretch=False)
    assert find_stretch([tmp_path / "a.tif"], "colour", stretch=True) == pytest.approx((7302, 8198), abs=3)


def test_16_bit_images_that_use_their_range_stay_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, 2, 1000, 60000, np.uint16)
    for stretch in (False, True):
        pairs = find_pairs(tmp_path, stretch=stretch)
        assert pairs[0].stretches == (None, None)
        np.testing.assert_array_equal(pairs[0].read()[0], (1000 + 59000 * RAMP).astype(np.uint16))


def test_8_bit_images_among_counts_are_not_stretched(tmp_path: Path) -> None:
    write(tmp_path, 2, 7300, 8200, np.uint16)
    (tmp_path / "ir" / "0.tif").unlink()
    Image.fromarray((255 * RAMP).astype(np.uint8)).save(tmp_path / "ir" / "0.png")
    first, _ = find_pairs(tmp_path, stretch=True)[0].read()
    np.testing.assert_array_equal(first, (255 * RAMP).astype(np.uint8))


def test_a_constant_cannot_be_stretched(tmp_path: Path) -> None:
    write(tmp_path, 2, 20, 20, np.float32)
    with pytest.raises(UserError, match="from 20 to 20, which cannot be stretched; replace or remove them"):
        find_pairs(tmp_path, stretch=True)


def test_what_is_not_a_number_becomes_black() -> None:
    np.testing.assert_array_equal(Stretch(0, 1)(np.array([np.nan, -np.inf, np.inf, 0.5])), [0, 0, 65535, 32768])


def test_the_run_records_the_limits_and_resuming_knows_them(tmp_path: Path) -> None:
    write(tmp_path, 4, 7300, 8200, np.uint16)
    pairs = open_pairs([tmp_path], task="infrared-visible", minimum_size=16, stretch=True)
    assert pairs.described["stretch"] == {f"{tmp_path.name}, first": pytest.approx([7301, 8199], abs=3)}
    other = open_pairs([tmp_path], task="infrared-visible", minimum_size=16, stretch=True)
    assert other.fingerprint() == pairs.fingerprint()


def test_alpha_channels_are_a_source(tmp_path: Path) -> None:
    (tmp_path / "rgbt").mkdir()
    thermal = (255 * RAMP).astype(np.uint8)
    for index in range(3):
        rgb = np.full((48, 64, 3), 40 + index, np.uint8)
        Image.fromarray(np.concatenate([rgb, thermal[..., None]], axis=-1)).save(tmp_path / "rgbt" / f"{index}.png")
    folder = str(tmp_path / "rgbt")
    for pairs in (
        match_pairs(f"{folder}:alpha", folder),
        match_pairs(f"{folder}/*.png:alpha", f"{folder}/*.png"),
        find_pairs(tmp_path, folders=("rgbt:alpha", "rgbt")),
    ):
        first, second = pairs[2].read()
        np.testing.assert_array_equal(first, thermal)
        np.testing.assert_array_equal(second, rgb)
    with pytest.raises(UserError, match=r"both sources of 0 are the file .*0\.png; name two .*':alpha'"):
        match_pairs(folder, folder)


def test_raw_counts_of_a_thermal_camera(shared: Path) -> None:
    folder = shared / "cases" / "files" / "raw14bit"
    with pytest.raises(UserError, match="hold values from 7360 to 8185, a small part of their range; stretch them"):
        find_pairs(folder)
    first, second = find_pairs(folder, stretch=True)[0].read()
    assert 255 * first.mean() / 65535 == pytest.approx(118, abs=1)
    assert second.mean() == pytest.approx(191.73, abs=0.01)
