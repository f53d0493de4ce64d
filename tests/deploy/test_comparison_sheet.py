"""The picture sheet and the regions that it enlarges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from timfuse.data import Pair
from timfuse.deploy.comparison_rows import REGION_COLOURS, choose_pairs, labels, read_rows
from timfuse.deploy.comparison_sheet import comparison_sheet
from timfuse.deploy.zoom_regions import Region, choose_regions, parse_region
from timfuse.runtime.errors import UserError


def scene(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def overlap(one, other):
    across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return across > 0 and down > 0


@settings(max_examples=25)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 2))
def test_regions_lie_inside_and_apart(height, width, count):
    images = [scene(height, width, seed) for seed in range(2 + count)]
    regions = choose_regions(images[:2], images[2:])
    assert len(regions) <= 2
    for region in regions:
        assert min(region) >= 0
        assert region.x + region.width <= width
        assert region.y + region.height <= height
        assert region.width >= 1 <= region.height
    assert len(regions) < 2 or not overlap(*regions)


def test_the_first_region_is_where_methods_differ_on_the_first_source():
    first, second = np.full((2, 240, 320), 90, np.uint8)
    first[150:180, 200:230] = 220
    first[40:70, 60:90] = 220  # both methods keep this one
    second[:, ::2] += 3
    kept = np.maximum(first, second)
    lost = kept.copy()
    lost[150:180, 200:230] = 90
    region = choose_regions([first, second], [kept, lost])[0]
    assert overlap(region, Region(200, 150, 30, 30))


def test_a_brightness_that_differs_everywhere_is_no_place_to_look():
    first, second = np.full((2, 240, 320), 90, np.uint8)
    second[60:100, 40:80:4] = 200
    dark, bright = second.copy(), second + 40
    bright[60:100, 40:80] = 120
    regions = choose_regions([first, second], [dark, bright])
    assert len(regions) == 1  # the first source is flat
    assert overlap(regions[0], Region(40, 60, 40, 40))


def test_equal_images_have_no_region():
    image = scene(40, 50)
    assert choose_regions([image, image], [image, image]) == []


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "1,2,0,4", "-1,2,3,4", "1.5,2,3,4", ""])
def test_what_is_no_region(text):
    with pytest.raises(UserError, match=r"write X,Y,WIDTH,HEIGHT"):
        parse_region(text)


def test_reading_a_region():
    assert parse_region("12, 8,64,48") == Region(12, 8, 64, 48)


def test_a_region_has_to_lie_inside_every_image(pairs, methods):
    with pytest.raises(UserError, match="the region 30,0,30,20 exceeds scene_1, which is 50x70"):
        comparison_sheet(pairs, methods, zoom=[Region(30, 0, 30, 20)])


def test_rows_hold_all_images_with_8_bits_and_one_region_for_all(pairs, methods):
    rows = list(read_rows(pairs, methods))
    assert [row.name for row in rows] == ["scene_0", "scene_1", "scene_2"]
    assert [image.shape for image in rows[0].images] == [(48, 64), (48, 64, 3), (48, 64), (48, 64, 3)]
    assert all(image.dtype == np.uint8 for row in rows for image in row.images)


def only_first(pairs, methods):
    return pairs[:1], {name: files[:1] for name, files in methods.items()}


def count_colour(sheet, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.asarray(sheet) == rgb).all(axis=-1).sum())


def test_the_sheet_shows_every_column_and_frames_both_regions(pairs, methods):
    sheet = comparison_sheet(pairs, methods)
    assert sheet.mode == "RGB"
    for colour in REGION_COLOURS[:2]:
        assert count_colour(sheet, colour) > 4 * 3 * 100  # 4 columns, 3 rows
    assert count_colour(sheet, REGION_COLOURS[2]) == 0
    wider = comparison_sheet(pairs, {**methods, "again": methods["dark"]})
    assert wider.width > sheet.width
    assert comparison_sheet(*only_first(pairs, methods)).height < sheet.height


def test_the_sheet_shows_the_pixels_unchanged_in_tone(tmp_path):
    for name, level in (("a", 10), ("b", 200), ("c", 90)):
        (tmp_path / name).mkdir()
        Image.new("L", (420, 300), level).save(tmp_path / name / "x.png")
    pair = Pair("x", tmp_path / "a" / "x.png", tmp_path / "b" / "x.png")
    sheet = comparison_sheet([pair], {"c": [tmp_path / "c" / "x.png"]}, zoom=[Region(0, 0, 10, 10)])
    pixels = np.asarray(sheet)
    for level in (10, 200, 90):
        assert int((pixels == level).all(axis=-1).sum()) > 400 * 280


def test_a_wide_region_is_enlarged_in_its_own_shape(pairs, methods):
    flat = comparison_sheet(*only_first(pairs, methods), zoom=[Region(0, 0, 40, 4)])
    tall = comparison_sheet(*only_first(pairs, methods), zoom=[Region(0, 0, 4, 40)])
    assert flat.height < tall.height


def test_columns_are_called_like_the_folders_where_these_differ(pairs, methods):
    assert labels(pairs, methods) == ["ir", "vis", "dark", "bright"]
    same = [Pair(pair.name, pair.first, pair.first) for pair in pairs]
    assert labels(same, methods)[:2] == ["first source", "second source"]


def test_long_and_foreign_names_fit_their_column(pairs, methods):
    longer = {"Слияние " * 20: methods["dark"], "b": methods["bright"]}
    assert comparison_sheet(pairs, longer).size == comparison_sheet(pairs, methods).size


def test_pairs_are_spread_evenly_or_named(pairs):
    many = [pairs[0]._replace(name=str(index)) for index in range(10)]
    assert [pair.name for pair in choose_pairs(many, limit=2)] == ["2", "7"]
    assert choose_pairs(many, limit=20) == many
    assert [pair.name for pair in choose_pairs(many, ["7", "1"])] == ["7", "1"]
    with pytest.raises(UserError, match="no pair is called x"):
        choose_pairs(many, ["1", "x"])
