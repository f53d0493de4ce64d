"""Box files in the form of Pascal VOC: edges in pixels, classes by name, and no file that does harm."""

from pathlib import Path

import pytest

from timfuse.data.boxes import ReadBoxes
from timfuse.data.voc import read_voc, voc_boxes
from timfuse.runtime.errors import UserError

SIZE = "<size><width>200</width><height>100</height><depth>3</depth></size>"


def entry(name: str, *corners: object, inner: str = "") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name>{inner}<bndbox>{box}</bndbox></object>"


def read(folder: Path, body: str) -> ReadBoxes:
    file = folder / "one.xml"
    file.write_text(body if body.startswith("<") else f"<annotation>{body.strip()}</annotation>")
    return voc_boxes(read_voc(file), ("car", "person"), height=100, width=200)


def test_the_numbers_are_edges_in_pixels(tmp_path: Path) -> None:
    difficult = "<difficult>1</difficult><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    body = SIZE + entry(" person\n", 0, 40, 10, 100) + entry("car", "10.5", 20, " 200 ", 30, inner=difficult)
    objects, clipped, polygons, crowds = read(tmp_path, f"<?xml version='1.0'?>\n<annotation>{body}</annotation>")
    assert objects.boxes.tolist() == [[0, 40, 10, 100], [10.5, 20, 200, 30]]
    assert objects.classes.tolist() == [1, 0]
    assert (clipped, polygons, crowds) == (0, 0, 0)


def test_an_image_without_objects_and_boxes_over_the_border(tmp_path: Path) -> None:
    assert read(tmp_path, "<annotation/>").objects.boxes.shape == (0, 4)
    objects, clipped, *_ = read(tmp_path, " " + entry("car", -5, 0, 10, 101) + entry("car", 0, 0, 10, 100))
    assert objects.boxes.tolist() == [[0, 0, 10, 100], [0, 0, 10, 100]]
    assert clipped == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (" " + entry("dog", 1, 2, 3, 4), "one.xml, object 1: 'dog' is none of the class names; correct it or add it"),
        (" " + entry("", 1, 2, 3, 4), "one.xml, object 1 has no name; name its class or remove the object"),
        (" " + entry("car", 1, 2, 3, ""), "one.xml, object 1: bndbox/ymax is '' and no number; write one there"),
        (" " + entry("car", 1, "two", 3, 4), "object 1: bndbox/ymin is 'two' and no number"),
        (" <object><name>car</name></object>", "object 1: bndbox/xmin is '' and no number"),
        (
            " " + entry("car", 3, 2, 3, 4),
            "object 1: the box has no area within the image; correct or remove the object",
        ),
        (" " + entry("car", 30, 2, 3, 4), "object 1: the box has no area"),
        (" " + entry("car", 300, 2, 310, 4), "object 1: the box has no area within the image"),
        (" " + entry("car", 1, 2, 3, "1e308"), "object 1: the box reaches far out of the image; correct or remove"),
        (" " + entry("car", 1, 2, 3, "nan"), "object 1: the box reaches far out of the image"),
        (" " + SIZE.replace("200", "201"), "one.xml is of an image of 201x100, its pair is 200x100; correct the size"),
        (" <size><width>200</width></size>", "one.xml: size/height is '' and no number"),
        (
            "<annotation><object></annotation>",
            "one.xml is damaged or no XML .mismatched tag: line 1, column 22.; write",
        ),
        ("<html/>", "one.xml holds 'html' and no 'annotation'; write XML in the form of Pascal VOC"),
        ("<" + "a" * 10_000 + "/>", "one.xml holds 'a{40}' and no"),
        ("<annotation>\0</annotation>", "damaged or no XML"),
        ("<a>" * 200_000, "damaged or no XML"),
        ("<a>" * 200_000 + "</a>" * 200_000, "holds 'a' and no"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "one.xml has a DOCTYPE, which is not read"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "has a DOCTYPE"),
        ("<annotation>&b;</annotation>", "damaged or no XML .undefined entity"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, body)
    assert "\n" not in str(caught.value)


def test_the_name_of_a_folder_is_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "{a} {0} %s"
    folder.mkdir()
    with pytest.raises(UserError, match=r"\{a\} \{0\} %s/one.xml, object 1: bndbox/xmin is '' and no number"):
        read(folder, " " + entry("car", "", 1, 2, 3))


def test_an_encoding_cannot_hide_a_doctype(tmp_path: Path) -> None:
    file = tmp_path / "one.xml"
    file.write_bytes('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a><annotation/>'.encode("utf-16"))
    with pytest.raises(
        UserError, match=r"cannot read the boxes .*one.xml; write XML in the form of Pascal VOC, in UTF-8"
    ):
        read_voc(file)
    file.write_bytes(b'\xef\xbb\xbf<?xml version="1.0" encoding="gb2312"?><annotation/>')
    assert read_voc(file).names == ()
