"""Class masks: the values that files hold, the layouts they lie in, and what is refused."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timfuse.data import write_pixels
from timfuse.data.masks import find_masks, read_mask, read_masks
from timfuse.runtime.errors import UserError

IDS = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)


def save(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def few_bits(bits: int) -> bytes:
    """A grey PNG of one pixel, of value 1, in so many bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 1, 1, bits, 0, 0, 0, 0)
    rows = zlib.compress(bytes([0, 1 << (8 - bits)]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_grey_values_and_places_in_a_palette_are_class_ids(tmp_path: Path) -> None:
    palette = Image.fromarray(IDS)
    palette.putpalette([value % 256 for value in range(7, 7 + 3 * 256)])
    assert palette.mode == "P"
    small = Image.fromarray(IDS % 4)
    small.putpalette([90, 90, 90, 80, 80, 80, 70, 70, 70, 60, 60, 60])
    assert np.array_equal(read_mask(save(tmp_path / "grey.png", Image.fromarray(IDS))), IDS)
    assert np.array_equal(read_mask(save(tmp_path / "palette.png", palette)), IDS)
    assert np.array_equal(read_mask(save(tmp_path / "small.png", small)), IDS % 4)  # two bits per pixel


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("colour.png", Image.fromarray(np.dstack([IDS] * 3))),
        ("deep.png", Image.fromarray(IDS.astype(np.uint16))),
        ("bits.png", Image.fromarray(IDS > 0)),
        ("alpha.png", Image.fromarray(IDS).convert("LA")),
        ("lossy.jpg", Image.fromarray(IDS)),
    ],
)
def test_other_kinds_of_images_are_no_masks(tmp_path: Path, name: str, image: Image.Image) -> None:
    file = save(tmp_path / name, image)
    with pytest.raises(UserError, match=rf"the mask .*{name} is no 8-bit grey or palette PNG .*; save it as one"):
        read_mask(file)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_would_come_scaled_and_is_refused(tmp_path: Path, bits: int) -> None:
    content = few_bits(bits)
    assert np.asarray(Image.open(io.BytesIO(content))) == 255 // (2**bits - 1) or bits == 1
    (tmp_path / "few.png").write_bytes(content)
    with pytest.raises(UserError, match=r"few\.png is no 8-bit grey"):
        read_mask(tmp_path / "few.png")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    whole = save(
        tmp_path / "whole.png", Image.fromarray(np.random.default_rng(0).integers(9, size=(64, 64), dtype="u1"))
    )
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:700])
    (tmp_path / "text.png").write_text("no image")
    for name in ("none.png", "half.png", "text.png"):
        with pytest.raises(UserError, match=rf"cannot read the mask .*{name}; replace it"):
            read_mask(tmp_path / name)


@pytest.mark.parametrize(
    "folder",
    ["label", "Label", "labels", "Segmentation_labels", "train/Label", "Segmentation_labels/train"],
)
def test_masks_are_found_in_the_usual_layouts(tmp_path: Path, folder: str) -> None:
    for name in ("a", "b", "more"):
        write_pixels(tmp_path / folder / f"{name}.png", IDS)
    write_pixels(tmp_path / "test" / "Label" / "c.png", IDS)
    assert find_masks(tmp_path, ["b", "a"]) == [tmp_path / folder / "b.png", tmp_path / folder / "a.png"]


def test_masks_that_are_missing_or_there_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no labels for segmentation: give label/NAME.png"):
        find_masks(tmp_path, ["a"])
    write_pixels(tmp_path / "label" / "a.png", IDS)
    with pytest.raises(
        UserError, match=r"the pair b has no mask \(2 of 3 pairs have none\); add it beside .*a.png, or "
    ):
        find_masks(tmp_path, ["a", "b", "c"])
    write_pixels(tmp_path / "label" / "a.bmp", IDS)
    with pytest.raises(UserError, match=r"a.bmp and .*a.png are masks of one pair; keep one"):
        find_masks(tmp_path, ["a"])
    write_pixels(tmp_path / "labels" / "a.png", IDS)
    with pytest.raises(UserError, match="holds masks as label/NAME and as labels/NAME; move one kind of them away"):
        find_masks(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0, 1], ("background", "target")),
        ([0, 1, 255], ("background", "target")),
        ([0, 3], ("background", "class 1", "class 2", "class 3")),
        ([2, 1], ("background", "class 1", "class 2")),
    ],
)
def test_classes_without_names(tmp_path: Path, values: list[int], classes: tuple[str, ...]) -> None:
    files = [tmp_path / f"{value}.png" for value in values]
    for file, value in zip(files, values, strict=True):
        write_pixels(file, np.full((2, 3), value, np.uint8))
    masks, names = read_masks(files, [(2, 3)] * len(files), tmp_path / "none.txt")
    assert names == classes
    assert [mask[0, 0] for mask in masks] == values


def test_names_and_sizes_are_checked(tmp_path: Path) -> None:
    names, file = tmp_path / "label-classes.txt", tmp_path / "one.png"
    write_pixels(file, IDS)
    names.write_text("ground\nperson\nbicycle\ncar\nbus\n")
    masks, classes = read_masks([file], [(2, 3)], names)
    assert np.array_equal(masks[0], IDS)
    assert classes == ("ground", "person", "bicycle", "car", "bus")
    names.write_text("ground\nperson\nbicycle\n")
    with pytest.raises(
        UserError, match=r"one.png holds the class id 3, but .*label-classes.txt ends at 2; name the class"
    ):
        read_masks([file], [(2, 3)], names)
    with pytest.raises(UserError, match=r"one.png is 3x2, its pair is 2x3; bring it to the size of the pair"):
        read_masks([file], [(3, 2)], names)


def test_background_alone_is_told(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    write_pixels(file, np.array([[0, 255]], np.uint8))
    with pytest.raises(
        UserError, match=r"nothing but background \(0\) and what is ignored \(255\); save them with class ids"
    ):
        read_masks([file], [(1, 2)], tmp_path / "none.txt")
    (tmp_path / "names.txt").write_text("background\nboat\n")
    assert read_masks([file], [(1, 2)], tmp_path / "names.txt")[1] == ("background", "boat")
