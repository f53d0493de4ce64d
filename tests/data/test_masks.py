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
from timfuse.runtime.progress import Progress

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
        ("three.png", Image.fromarray(np.dstack([IDS] * 3))),
        ("opaque.png", Image.fromarray(np.dstack([*[IDS] * 3, np.full_like(IDS, 9)]))),
        ("alpha.png", Image.fromarray(np.dstack([IDS, IDS[::-1]]))),
        ("deep.png", Image.fromarray(IDS.astype(np.uint16))),
    ],
)
def test_ids_come_in_grey_images_of_many_kinds(tmp_path: Path, name: str, image: Image.Image) -> None:
    mask = read_mask(save(tmp_path / name, image))
    assert np.array_equal(mask, IDS)
    assert mask.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("lossy.jpg", Image.fromarray(IDS), "is a JPEG file, which mixes class ids by its compression; save it as PNG"),
        ("other.bmp", Image.fromarray(IDS), r"is no PNG file \(BMP\); save it as one"),
        ("deep.png", Image.fromarray(IDS.astype(np.uint16) * 257), "holds 65535, but class ids end at 254; save it"),
        (
            "colour.png",
            Image.fromarray(np.dstack([IDS, IDS, IDS + 1])),
            "shows the colour 0 0 1 and no class ids; write lines 'red green blue name' into label-classes.txt, or",
        ),
    ],
)
def test_other_kinds_of_images_are_no_masks(tmp_path: Path, name: str, image: Image.Image, message: str) -> None:
    file = save(tmp_path / name, image)
    with pytest.raises(UserError, match=rf"the mask .*{name} {message}"):
        read_mask(file)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_holds_ids_though_it_comes_scaled(tmp_path: Path, bits: int) -> None:
    content = few_bits(bits)
    assert np.asarray(Image.open(io.BytesIO(content))) == 255 // (2**bits - 1) or bits == 1
    (tmp_path / "few.png").write_bytes(content)
    assert read_mask(tmp_path / "few.png").tolist() == [[1]]


TABLE = "0 0 0 void\n128 64 0\ttraffic light\n 64 128 64 Animal \n255 255 255 sky\n"
CODES = np.array([[2, 1, 0], [3, 1, 2]], np.uint8)
COLOURS = np.array([[0, 0, 0], [128, 64, 0], [64, 128, 64], [255, 255, 255]], np.uint8)


def test_colours_are_read_by_the_table(tmp_path: Path) -> None:
    (tmp_path / "label-classes.txt").write_text(TABLE)
    shown = COLOURS[CODES]
    alpha = np.dstack([shown, np.zeros(CODES.shape, np.uint8)])
    images = [Image.fromarray(shown), Image.fromarray(alpha), Image.fromarray(shown).quantize(4)]
    assert images[2].mode == "P"
    files = [save(tmp_path / f"{number}.png", image) for number, image in enumerate(images)]
    files.append(save(tmp_path / "grey.png", Image.fromarray(np.array([[0, 255, 0], [0, 0, 0]], np.uint8))))
    files.append(save(tmp_path / "one.png", Image.fromarray(np.array([[0, 1, 0], [0, 0, 0]], bool))))
    masks, classes = read_masks(files, [(2, 3)] * 5, tmp_path / "label-classes.txt")
    assert classes == ("void", "traffic light", "Animal", "sky")
    for mask in masks[:3]:
        assert np.array_equal(mask, CODES)
        assert mask.dtype == np.uint8
    assert [mask.tolist() for mask in masks[3:]] == [[[0, 3, 0], [0, 0, 0]]] * 2


@pytest.mark.parametrize("colour", [(128, 64, 1), (1, 1, 1), (255, 255, 254)])
def test_a_colour_that_the_table_lacks_is_named(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    (tmp_path / "label-classes.txt").write_text(TABLE)
    shown = COLOURS[CODES]
    shown[1, 1] = colour
    file = save(tmp_path / "odd.png", Image.fromarray(shown))
    words = " ".join(map(str, colour))
    with pytest.raises(UserError, match=rf"the mask .*odd\.png shows the colour {words}, which label-classes.txt does"):
        read_masks([file], [(2, 3)], tmp_path / "label-classes.txt")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    whole = save(
        tmp_path / "whole.png", Image.fromarray(np.random.default_rng(0).integers(9, size=(64, 64), dtype="u1"))
    )
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:700])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "no-pixels.png").write_bytes(few_bits(8)[:33] + few_bits(8)[-12:])
    for name in ("none.png", "text.png", "no-pixels.png"):
        with pytest.raises(UserError, match=rf"cannot read the mask .*{name}; replace it"):
            read_mask(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot read the image .*half.png \(image file is truncated.*; replace or"):
        read_mask(tmp_path / "half.png")


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
    with pytest.raises(UserError, match=r"nothing but background .*class ids from 1 on as pixel values \(boat as 1\)$"):
        read_masks([file], [(1, 2)], tmp_path / "names.txt")


def test_named_classes_that_occur_nowhere_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    for file, value in zip(files, (0, 2), strict=True):
        write_pixels(file, np.full((2, 3), value, np.uint8))
    names = tmp_path / "label-classes.txt"
    names.write_text("ground\nperson\nbicycle\ncar\n")
    with Progress(2, "checking") as progress:
        read_masks(files, [(2, 3)] * 2, names, progress)
    assert capsys.readouterr().err.splitlines() == [f"of the classes in {names}, no mask shows person, car"]
    write_pixels(files[0], np.array([[0, 1, 3]] * 2, np.uint8))
    with Progress(2, "checking") as progress:
        read_masks(files, [(2, 3)] * 2, names, progress)
    assert capsys.readouterr().err == ""


def test_a_stray_value_makes_no_classes(tmp_path: Path) -> None:
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    write_pixels(files[0], np.array([[0, 1, 1]], np.uint8))
    write_pixels(files[1], np.array([[0, 1, 254]], np.uint8))
    with pytest.raises(
        UserError,
        match=r"the mask .*two\.png holds the class id 254, but 252 ids below it occur in no mask of .*; correct its "
        r"pixels, or name all classes in .*names\.txt",
    ):
        read_masks(files, [(1, 3)] * 2, tmp_path / "names.txt")
    write_pixels(files[1], np.array([[0, 1, 255]], np.uint8))
    assert read_masks(files, [(1, 3)] * 2, tmp_path / "names.txt")[1] == ("background", "target")


def test_a_rare_class_may_be_missing_without_names(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    write_pixels(file, np.array([[0, 1, 2, 3, 8]], np.uint8))
    assert len(read_masks([file], [(1, 5)], tmp_path / "none.txt")[1]) == 9
    write_pixels(file, np.array([[0, 1, 2, 3, 10]], np.uint8))
    with pytest.raises(UserError, match="holds the class id 10, but 6 ids below it occur in no mask"):
        read_masks([file], [(1, 5)], tmp_path / "none.txt")
