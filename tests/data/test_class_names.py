"""Class names: one per line, and every way to get that wrong."""

from pathlib import Path

import pytest

from timfuse.data.class_names import find_class_names, read_class_names, read_mask_classes, write_class_names
from timfuse.runtime.errors import UserError


def test_written_names_are_read(tmp_path: Path) -> None:
    names = ("background", "traffic light", "Straße")
    write_class_names(tmp_path / "new" / "classes.txt", names)
    assert read_class_names(tmp_path / "new" / "classes.txt") == names


def test_what_editors_leave_is_no_matter(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(b"\xef\xbb\xbfperson \r\n\tcar\r\n\r\n")
    assert read_class_names(file) == ("person", "car")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the class names .*classes.txt; write one name per line"),
        (b"\xff\xfe", "cannot read the class names"),
        (b"", "names no class; write one name per line"),
        (b" \n\n", "names no class"),
        (b"person\n\ncar\n", "line 2 is empty, but every line stands for a class id; name the class"),
        (b"\nperson\n", "line 1 is empty"),
        (b"person\nc\x1b[31mar\n", r"has control characters in the class name 'c\\x1b\[31mar'; take them out"),
        (b"person\ncar\0\n", "has control characters in the class name"),
        (b"\n".join(b"%d" % number for number in range(2**15 + 1)), "names 32769 classes; the most are 32768"),
        (b"person\ncar\nperson \n", "names 'person' twice; give every class its own name"),
    ],
)
def test_bad_names(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_class_names(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    "text",
    [
        "train: images\nnc: 2\nnames: [person, traffic light]\n",
        "names:\n  0: person\n  1: traffic light\n",
        "names: {1: traffic light, 0: person}\ndownload: |\n  any text\n",
        "names:\n  '0': person\n  '1': traffic light\n",
        "names:\n- person\n- 'traffic light '\n",
    ],
)
def test_names_in_the_file_of_yolo(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    assert read_class_names(tmp_path / "data.yaml") == ("person", "traffic light")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [person, no, 3, person]", "names 'person' twice"),
        ("nc: 2\n", "names no class; give `names` as a list"),
        ("names: []", "names no class"),
        ("names: person", "names no class"),
        ("person", "names no class"),
        ("names: {0: person, 2: car}", "names no class 1; number the 2 classes from 0 on"),
        ("names: [person, null]", "has 'None' among `names`, which is no name; write a text in quotes"),
        ("names: [person, [car]]", "has .* among `names`"),
        ('names: ["a\\e"]', "has control characters in the class name"),
        ("names: [person", "not valid YAML"),
        ("[" * 100_000, "nested too deeply"),
        ("a: &a [x, x]\nnames: *a", "anchors .* are not read"),
        ("\0", "not valid YAML"),
    ],
)
def test_bad_names_in_the_file_of_yolo(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_class_names(tmp_path / "data.yaml")
    assert "\n" not in str(caught.value)


def test_names_and_numbers_are_names(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [no, 3]")
    assert read_class_names(tmp_path / "data.yaml") == ("no", "3")


def test_where_names_are_looked_for(tmp_path: Path) -> None:
    folder = tmp_path / "labels" / "train"
    folder.mkdir(parents=True)
    assert find_class_names(tmp_path, folder) is None
    for file in (
        tmp_path / "data.yaml",
        folder.parent / "classes.txt",
        folder / "classes.txt",
        tmp_path / "classes.txt",
    ):
        file.touch()
        assert find_class_names(tmp_path, folder) == file


def test_colours_of_classes(tmp_path: Path) -> None:
    file = tmp_path / "label-classes.txt"
    file.write_text("0 0 0 background\n128\t64 0  traffic light\n")
    assert read_mask_classes(file) == (("background", "traffic light"), ((0, 0, 0), (128, 64, 0)))
    file.write_text("background\n2 wheels\n1 2 3\n")
    assert read_mask_classes(file) == (("background", "2 wheels", "1 2 3"), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 0 a\nb\n", "line 2 has no colour, unlike others; write 'red green blue name'"),
        ("0 0 0 a\n0 256 0 b\n", "line 2: the colour goes beyond 255"),
        ("0 0 0 a\n1 2 3 b\n000 0 0 c\n", "line 3: the colour stands for 'a' already; give every class its own"),
        ("0 0 0 a\n1 2 3 a\n", "names 'a' twice"),
        ("\n".join(map(str, range(256))), "names 256 classes; masks hold at most 255"),
    ],
)
def test_bad_colours_of_classes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "label-classes.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_mask_classes(tmp_path / "label-classes.txt")
