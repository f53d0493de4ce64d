"""Class names: one per line, and every way to get that wrong."""

from pathlib import Path

import pytest

from timfuse.data.class_names import read_class_names, write_class_names
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
        (b"person\ncar\nperson \n", "names 'person' twice; give every class its own name"),
    ],
)
def test_bad_names(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_class_names(tmp_path / "classes.txt")
