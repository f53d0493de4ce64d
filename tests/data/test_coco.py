"""Box files in the form of COCO: categories by ascending ids, several files as one, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from timfuse.data.coco import read_coco
from timfuse.runtime.errors import UserError

SIZES = [(100, 200), (100, 200), (80, 80)]
NAMES = ["a", "b", "c"]
CATEGORIES = [{"id": 7, "name": "car", "supercategory": "vehicle"}, {"id": 3, "name": "person"}]


def image(number: int | str, name: str, **more: object) -> dict[str, object]:
    return {"id": number, "file_name": name, **more}


def annotation(number: int | str, *box: object, category: int = 3, **more: object) -> dict[str, object]:
    return {"image_id": number, "category_id": category, "bbox": box, **more}


def write(
    folder: Path, images: list[Any], annotations: list[Any], categories: list[Any] = CATEGORIES, name: str = "one.json"
) -> Path:
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (folder / name).write_text(json.dumps(content))
    return folder / name


def test_boxes_come_by_the_names_of_images(tmp_path: Path) -> None:
    images = [image(5, "train/b.jpg", width=200, height=100), image("x", "vis\\a.png"), image(9, "no pair.png")]
    annotations = [
        annotation("x", 10, 20.5, 30, 40, category=7),
        annotation(5, 0, 0, 200, 100),
        annotation(9, 0, 0, 1, 1),
        annotation("x", 1, 2, 3, 4, iscrowd=0, segmentation=[[1, 2]], area=12),
        annotation("x", 0, 0, 100, 100, iscrowd=1),
        annotation("x", -5, 0, 10, 10),
    ]
    classes, (first, second, third) = read_coco([write(tmp_path, images, annotations)], NAMES, SIZES)
    assert classes == ("person", "car")
    assert first is not None
    assert second is not None
    assert first.objects.boxes.tolist() == [[10, 20.5, 40, 60.5], [1, 2, 4, 6], [0, 0, 5, 10]]
    assert first.objects.classes.tolist() == [1, 0, 0]
    assert (first.clipped, first.crowds, second.clipped, second.crowds) == (1, 1, 0, 0)
    assert second.objects.boxes.tolist() == [[0, 0, 200, 100]]
    assert third is None


def test_several_files_are_joined(tmp_path: Path) -> None:
    more = [{"id": 1, "name": "bus"}, {"id": 3, "name": "person "}]
    files = [
        write(tmp_path, [image(1, "a.png")], [annotation(1, 1, 2, 3, 4)], name="train.json"),
        write(tmp_path, [image(1, "b.png")], [annotation(1, 5, 6, 7, 8, category=1)], more, name="val.json"),
    ]
    classes, (first, second, _) = read_coco(files, NAMES, SIZES)
    assert classes == ("bus", "person", "car")
    assert first is not None
    assert second is not None
    assert (first.objects.classes.tolist(), second.objects.classes.tolist()) == ([1], [0])
    assert second.objects.boxes.tolist() == [[5, 6, 12, 14]]
    write(tmp_path, [], [], [{"id": 3, "name": "rider"}], name="val.json")
    with pytest.raises(
        UserError, match=r"category 3 is 'person' in .*train.json and 'rider' in .*val.json; give it one"
    ):
        read_coco(files, NAMES, SIZES)
    write(tmp_path, [], [], [{"id": 4, "name": "person"}], name="val.json")
    with pytest.raises(UserError, match=r"train.json and .*val.json names 'person' twice"):
        read_coco(files, NAMES, SIZES)
    write(tmp_path, [image(8, "ir/a.jpg")], [], name="val.json")
    with pytest.raises(
        UserError, match=r"ir/a.jpg in .*val.json and a.png in .*train.json are images of one pair; keep"
    ):
        read_coco(files, NAMES, SIZES)


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ([image(1, "c.png", width=200, height=80)], [], "c.png is 200x80 in .*one.json, its pair is 80x80; correct"),
        ([image(1, "a.png"), image(1, "b.png")], [], "two images in .*one.json have one id; give each its own"),
        ([], [annotation(4, 1, 2, 3, 4)], "annotations.0 is of the image 4, which `images` does not list; add"),
        (
            [image(1, "a.png")],
            [annotation(1, 1, 2, 3, 4, category=4)],
            "annotations.0: the category 4 has no name; add",
        ),
        ([image(1, "a.png")], [annotation(1, 1, 2, 0, 4)], "annotations.0: the box has no area within the image; corr"),
        ([image(1, "a.png")], [annotation(1, 1, 2, 3, -4)], "annotations.0: the box has no area within"),
        ([image(1, "a.png")], [annotation(1, 1, 1e308, 3, 1e308)], "annotations.0: the box reaches far out of the ima"),
        ([image(1, "a.png")], [annotation(1, 1, 10**400, 3, 4)], "annotations.0.bbox.1: .*; write `images`, `categor"),
        ([image(1, "a.png")], [annotation(1, 1, float("nan"), 3, 4)], "annotations.0.bbox.1: Input should be a finite"),
        ([image(1, "a.png")], [annotation(1, 1, 2, 3)], "holds no boxes of COCO: annotations.0.bbox.3: Field required"),
        ([image(1, "a.png")], [{"image_id": 1, "category_id": 3}], "annotations.0.bbox: Field required"),
        ([{"id": 1}], [], "images.0.file_name: Field required"),
    ],
)
def test_bad_entries_are_refused(tmp_path: Path, images: list[Any], annotations: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_coco([write(tmp_path, images, annotations)], NAMES, SIZES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "one.json holds no boxes of COCO: Invalid JSON: .*; write `images`"),
        (b"\xff\xfe\0{", "Invalid JSON"),
        (b"\0", "Invalid JSON"),
        (b"[" * 1_000_000, "Invalid JSON: recursion limit"),
        (b'{"images": ' + b'{"a":' * 1_000_000, "Invalid JSON: recursion limit"),
        (b"[]", "Input should be an object"),
        (b'{"images": [], "annotations": []}', "categories: Field required"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a\\u001b"}]}', "control characters"),
        (b'{"images": [{"id": ' + b"9" * 5000 + b"}]}", "number out of range"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "one.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_coco([tmp_path / "one.json"], NAMES, SIZES)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    file = write(tmp_path, [image(1, "a.png")], [])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_coco([file], NAMES, SIZES)[0] == ("person", "car")


def test_giant_files_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "one.json").open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(UserError, match=r"one.json has more than 1024 MB, which no file of boxes has"):
        read_coco([tmp_path / "one.json"], NAMES, SIZES)
