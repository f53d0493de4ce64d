"""The boxes of a data set: which of its files are read, whose class names count, and what users are told."""

import json
from pathlib import Path

import pytest

from timfuse.data.box_files import BoxFiles, find_boxes
from timfuse.data.boxes import read_boxes
from timfuse.runtime.errors import UserError
from timfuse.runtime.progress import Progress

NAMES = ["a", "b", "c"]
SIZES = [(100, 200)] * 3
YOLO = "0 0.5 0.5 0.1 0.2\n"
BOX = [90, 40, 110, 60]


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def voc(*names: str) -> str:
    box = "<bndbox><xmin>90</xmin><ymin>40</ymin><xmax>110</xmax><ymax>60</ymax></bndbox>"
    return f"<annotation>{''.join(f'<object><name>{name}</name>{box}</object>' for name in names)}</annotation>"


def coco(name: str, category: str = "bus", **more: object) -> str:
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": f"{name}.jpg"}],
            "annotations": [{"image_id": 1, "category_id": 4, "bbox": [90, 40, 20, 20], **more}],
            "categories": [{"id": 4, "name": category}],
        }
    )


def read(
    files: BoxFiles, capsys: pytest.CaptureFixture[str]
) -> tuple[tuple[str, ...], list[list], list[list], list[str]]:
    with Progress(3, "checking") as progress:
        classes, objects = files.read(SIZES, progress)
    lines = capsys.readouterr().err.splitlines()
    return classes, [each.boxes.tolist() for each in objects], [each.classes.tolist() for each in objects], lines


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        ({"boxes/a.txt": YOLO, "classes.txt": "person"}, "person"),
        ({"Labels/a.TXT": YOLO, "classes.txt": "person", "data.yaml": "names: [car]"}, "person"),
        ({"labels/a.txt": YOLO, "labels/classes.txt": "person"}, "person"),
        ({"labels/train/a.txt": YOLO, "labels/val/b.txt": YOLO, "data.yaml": "names: {0: car}"}, "car"),
        ({"train/labels/a.txt": YOLO, "data.yaml": "names: [car]"}, "car"),
        ({"Annotation/a.xml": voc("lamp")}, "lamp"),
        ({"Annotations/a.xml": voc("lamp"), "ir/a.xml": ""}, "lamp"),
        ({"annotations/a.xml": voc("lamp"), "classes.txt": "lamp"}, "lamp"),
        ({"annotations/train/a.xml": voc("lamp")}, "lamp"),
        ({"annotations/train.json": coco("a")}, "bus"),
        ({"Annotation/anything.json": coco("a"), "classes.txt": "car"}, "bus"),
        ({"annotations/instances_1.json": coco("a"), "annotations/captions_1.json": "{}"}, "bus"),
    ],
)
def test_boxes_of_every_form_are_found(
    tmp_path: Path, files: dict[str, str], classes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, files)
    found = find_boxes(tmp_path, NAMES)
    names, boxes, ids, lines = read(found, capsys)
    assert (names, ids) == ((classes,), [[0], [], []])
    assert boxes[0][0] == pytest.approx(BOX)
    missing = "image in annotation" if found.layouts[0].endswith("json") else "label file and"
    assert len(lines) == 1
    assert lines[0].lower().startswith(f"2 of 3 pairs in {tmp_path} have no {missing}".lower())


def test_the_first_of_several_forms_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, {"annotations/train.json": coco("a")})
    put(tmp_path, {f"annotations/{name}.xml": voc("lamp", "lamp") for name in NAMES})
    assert read(find_boxes(tmp_path, NAMES), capsys)[2:] == (
        [[0, 0]] * 3,
        [f"{tmp_path} has boxes as annotations/NAME.xml and as annotations/*.json; annotations/NAME.xml are read"],
    )
    put(tmp_path, {f"labels/{name}.txt": YOLO for name in NAMES} | {"classes.txt": "car"})
    assert read(find_boxes(tmp_path, NAMES), capsys)[3] == [
        f"{tmp_path} has boxes as labels/NAME.txt and as annotations/NAME.xml and as annotations/*.json; "
        "labels/NAME.txt are read"
    ]
    put(tmp_path, {f"boxes/{name}.txt": "" for name in NAMES})
    assert find_boxes(tmp_path, NAMES).files == tuple(tmp_path / "boxes" / f"{name}.txt" for name in NAMES)
    assert read(find_boxes(tmp_path, NAMES), capsys)[1] == [[], [], []]


def test_what_was_done_to_boxes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, {"labels/a.txt": "0 .1 .1 .2 .1 .2 .2\n0 0 0 .2 .2\n", "labels/b.txt": "0 .1 .1 .2 .1 .2 .2\n" * 2})
    put(tmp_path, {"labels/c.txt": "", "classes.txt": "car"})
    assert read(find_boxes(tmp_path, NAMES), capsys)[3] == [
        f"1 boxes of 1 pairs in {tmp_path} reach over the border of their image; they were clipped to it",
        f"3 polygons of 2 pairs in {tmp_path} are read as the boxes around them",
    ]
    for file in (tmp_path / "labels").iterdir():
        file.unlink()
    put(tmp_path, {"annotations/all.json": coco("b", iscrowd=1)})
    classes, boxes, _, lines = read(find_boxes(tmp_path, NAMES), capsys)
    assert (classes, boxes) == (("bus",), [[], [], []])
    assert lines == [
        f"2 of 3 pairs in {tmp_path} have no image in annotations/*.json and are taken to show no object",
        f"1 crowds of 1 pairs in {tmp_path} (iscrowd) are left out",
    ]


def test_classes_of_pascal_voc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, {"annotation/a.xml": voc("person", "car"), "annotation/b.xml": voc("bus"), "annotation/c.xml": voc()})
    classes, _, ids, lines = read(find_boxes(tmp_path, NAMES), capsys)
    assert (classes, ids, lines) == (("bus", "car", "person"), [[2, 1], [0], []], [])
    put(tmp_path, {"data.yaml": "names: [person, car, bus, truck]"})
    classes, _, ids, _ = read(find_boxes(tmp_path, NAMES), capsys)
    assert (classes, ids) == (("person", "car", "bus", "truck"), [[0, 1], [2], []])
    put(tmp_path, {"classes.txt": "person\ncar\n"})
    with pytest.raises(UserError, match=r"b\.xml, object 1: 'bus' is none of the class names"):
        read(find_boxes(tmp_path, NAMES), capsys)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "data.yaml").unlink()
    put(tmp_path, {f"annotation/{name}.xml": voc() for name in NAMES})
    with pytest.raises(
        UserError, match=r"no file of .*annotation/NAME.xml has an object; name the classes in classes.tx"
    ):
        read(find_boxes(tmp_path, NAMES), capsys)


def test_data_sets_without_boxes_are_told_all_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, {"labels/a.png": "", "annotations/readme.md": ""})
    with pytest.raises(UserError) as caught:
        find_boxes(tmp_path, NAMES)
    assert str(caught.value) == (
        f"{tmp_path} has no labels for detection: give boxes/NAME.txt and classes.txt (YOLO), annotations/NAME.xml "
        "(Pascal VOC) or annotations/*.json (COCO)"
    )
    put(tmp_path, {"labels/classes.txt": "car", "labels/a.jpg.txt": YOLO})
    with pytest.raises(
        UserError, match=r"labels/a.jpg.txt and the files beside it have no pair's name, such as a; rename"
    ):
        find_boxes(tmp_path, NAMES)
    put(tmp_path, {"annotations/one.json": coco("d")})
    with pytest.raises(
        UserError, match=r"no pair in .*, such as a, has an image in annotations/\*.json; name the images"
    ):
        read(find_boxes(tmp_path, NAMES), capsys)


def test_names_of_classes_are_missing_or_files_are_there_twice(tmp_path: Path) -> None:
    put(tmp_path, {"labels/a.txt": YOLO})
    with pytest.raises(UserError, match=r"cannot read the class names .*classes.txt; write one name per line"):
        find_boxes(tmp_path, NAMES)
    put(tmp_path, {"labels/a.TXT": YOLO, "classes.txt": "car"})
    with pytest.raises(
        UserError, match=r"labels/a.TXT and .*labels/a.txt are label files of one pair; keep one of them"
    ):
        find_boxes(tmp_path, NAMES)


def test_yolo_boxes_are_those_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, {f"boxes/{name}.txt": f"1 0.{number}1 0.5 0.07 0.3\n" for number, name in enumerate(NAMES)})
    put(tmp_path, {"classes.txt": "person\ncar\n"})
    _, boxes, _, lines = read(find_boxes(tmp_path, NAMES), capsys)
    files = [tmp_path / "boxes" / f"{name}.txt" for name in NAMES]
    assert boxes == [read_boxes(file, 2, height=100, width=200).objects.boxes.tolist() for file in files]
    assert len(lines) == 1  # one is clipped
