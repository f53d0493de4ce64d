"""Box files: read exactly, clipped as documented, refused with file and line."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timfuse.data import Objects
from timfuse.data.boxes import ReadBoxes, read_boxes, write_boxes
from timfuse.runtime.errors import UserError


def read(folder: Path, text: str) -> ReadBoxes:
    file = folder / "one.txt"
    file.write_text(text)
    return read_boxes(file, 3, height=100, width=200)


def test_lines_become_corners_in_pixels(tmp_path: Path) -> None:
    objects, clipped, *_ = read(tmp_path, "2 0.5 0.5 0.1 0.2\n\n  0\t0.25 0.1 0.5 2e-1 \n")
    assert objects.boxes.tolist() == [[90, 40, 110, 60], [0, 0, 100, 20]]
    assert (objects.boxes.dtype, objects.classes.tolist(), objects.classes.dtype) == (
        torch.float32,
        [2, 0],
        torch.int64,
    )
    assert clipped == 0


def test_an_empty_file_is_an_image_without_objects(tmp_path: Path) -> None:
    for text in ("", "\n \n"):
        objects, clipped, *_ = read(tmp_path, text)
        assert (objects.boxes.shape, objects.classes.shape, clipped) == ((0, 4), (0,), 0)
        assert (objects.boxes.dtype, objects.classes.dtype) == (torch.float32, torch.int64)


def test_boxes_over_the_border_are_clipped_and_counted(tmp_path: Path) -> None:
    objects, clipped, *_ = read(
        tmp_path, "0 0 0.5 0.1 0.2\n1 0.9 0.95 0.4 0.2\n1 0.95 0.5 0.1 0.2\n1 0.9501 0.5 0.1 0.2\n"
    )
    assert objects.boxes.tolist()[0] == [0, 40, 10, 60]
    assert objects.boxes.tolist()[1] == pytest.approx([140, 85, 200, 100])
    assert objects.boxes[2:, 2].tolist() == [200, 200]
    assert clipped == 2  # the last one's 0.02 pixels are rounding


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", r"'0 0.5 0.5 0.1' is no box; write 'class cx cy w h' as numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "is no box"),
        ("0 0.1 0.1 0.2 0.2 0 0.1 0.1 0.2 0.2", "is no box"),
        ("person 0.5 0.5 0.1 0.1", "is no box"),
        ("0,0.5,0.5,0.1,0.1", "is no box"),
        ("0 nan 0.5 0.1 0.1", "a value is not finite; correct or remove the line"),
        ("0 0.5 0.5 inf 0.1", "a value is not finite"),
        ("nan 0.5 0.5 0.1 0.1", "a value is not finite"),
        (
            "3 0.5 0.5 0.1 0.1",
            "the class is none of 0 to 2 of the class names; correct it or add the class's name there",
        ),
        ("-1 0.5 0.5 0.1 0.1", "the class is none of"),
        ("0.5 0.5 0.5 0.1 0.1", "the class is none of"),
        ("0 0.5 0.5 0 0.1", "the box has no area; give it a positive width and height or remove the line"),
        ("0 0.5 0.5 0.1 -0.1", "the box has no area;"),
        ("0 0.5 0.5 1e-12 0.1", "the box has no area within the image"),
        ("0 1.2 0.5 0.1 0.1", "no area within the image; write centre and size as fractions of the image, from 0 to 1"),
        ("0 0.5 -0.1 0.1 0.2", "no area within the image"),
        ("0 90 40 20 20", "no area within the image"),
        ("0 1e308 0.5 1e308 0.2", "the box reaches far out of the image; write centre and size as fractions"),
        ("0 0.5 0.5 1e308 1e308", "the box reaches far out of the image"),
        ("0 -1.7e308 0 1.7e308 0 1.7e308 1", "the box reaches far out of the image"),
        ("1e308 0.5 0.5 0.1 0.1", "the class is none of"),
        ("0 0.5 0.5 0.1 0.1\0", "is no box"),
        ("0 0.1 0.1 0.2 0.2 0.3", "is no box; write .*, or 'class x1 y1 x2 y2 x3 y3 ...' for a polygon"),
        ("0 0.1 0.1 0.2 nan 0.3 0.3", "a value is not finite"),
        ("0 0.1 0.1 0.1 0.2 0.1 0.3", "the box has no area;"),
    ],
)
def test_bad_lines_are_refused_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"one\.txt, line 3: .*{message}"):
        read(tmp_path, f"0 0.5 0.5 0.1 0.1\n\n{line}\n2 0.5 0.5 0.1 0.1\n")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("none.txt", "bytes.txt"):
        with pytest.raises(UserError, match=f"cannot read the boxes .*{name}; write lines of 'class cx cy w h'"):
            read_boxes(tmp_path / name, 3, height=8, width=8)


@settings(max_examples=20)  # each writes a file
@given(data=st.data(), height=st.integers(32, 3000), width=st.integers(32, 4000))
def test_written_boxes_are_read(data: st.DataObject, height: int, width: int) -> None:
    def span(size: int) -> tuple[float, float]:
        start = data.draw(st.floats(0, size - 0.5))
        return start, min(start + data.draw(st.floats(0.25, size)), size)

    count = data.draw(st.integers(0, 4))
    spans = [(span(width), span(height)) for _ in range(count)]
    boxes = torch.tensor([[x[0], y[0], x[1], y[1]] for x, y in spans]).reshape(-1, 4)
    classes = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), dtype=torch.int64)
    with TemporaryDirectory() as folder:
        write_boxes(Path(folder) / "one.txt", Objects(boxes, classes), height=height, width=width)
        objects, clipped, *_ = read_boxes(Path(folder) / "one.txt", 3, height=height, width=width)
    torch.testing.assert_close(objects.boxes, boxes, rtol=0, atol=1e-3)
    assert torch.equal(objects.classes, classes)
    assert clipped == 0


def test_scores_end_the_lines_and_are_not_read_for_the_truth(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    objects = Objects(torch.tensor([[90.0, 40, 110, 60], [0, 0, 100, 20]]), torch.tensor([2, 0]))
    write_boxes(file, objects, height=100, width=200, scores=torch.tensor([0.75, 0.05]))
    rows = [[float(value) for value in line.split()] for line in file.read_text().splitlines()]
    assert rows[0] == pytest.approx([2, 0.5, 0.5, 0.1, 0.2, 0.75])
    assert rows[1] == pytest.approx([0, 0.25, 0.1, 0.5, 0.2, 0.05])
    with pytest.raises(UserError, match=r"line 1: .* is no box"):
        read_boxes(file, 3, height=100, width=200)
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    write_boxes(file, nothing, height=100, width=200, scores=torch.zeros(0))
    assert file.read_text() == ""


def test_polygons_are_read_as_the_boxes_around_them(tmp_path: Path) -> None:
    text = "1 0.4 0.4 0.6 0.45 0.5 0.7\n0 0.5 0.5 0.1 0.2\n2 0.9 0.1 1.2 0.1 1.2 0.3 0.9 0.3\n"
    objects, clipped, polygons, crowds = read(tmp_path, text)
    expected = torch.tensor([[80.0, 40, 120, 70], [90, 40, 110, 60], [180, 10, 200, 30]])
    torch.testing.assert_close(objects.boxes, expected)
    assert (objects.classes.tolist(), clipped, polygons, crowds) == ([1, 0, 2], 1, 2, 0)


def test_no_device_and_no_giant_file_is_read(tmp_path: Path) -> None:
    giant = tmp_path / "giant.txt"
    with giant.open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(UserError, match=r"giant\.txt has more than 16 MB, which no file of boxes has; write lines"):
        read_boxes(giant, 3, height=8, width=8)
    (tmp_path / "endless.txt").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"endless\.txt is no regular file; replace or remove it"):
        read_boxes(tmp_path / "endless.txt", 3, height=8, width=8)
