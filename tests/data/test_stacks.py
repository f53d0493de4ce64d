"""Stacks of image files: their images match as those of pairs do."""

from pathlib import Path

import numpy as np
import pytest

from timfuse.data import find_stacks, match_stacks, write_pixels
from timfuse.runtime.errors import UserError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes grey images of different levels, in an empty current folder."""
    monkeypatch.chdir(tmp_path)

    def write(*names):
        for level, name in enumerate(names):
            write_pixels(Path(name), np.full((4, 5), level, np.uint8))

    return write


def test_folders_patterns_and_files(write):
    write("a/1.png", "b/1.jpg", "c/1.png", "a/2.png", "b/2.jpg", "c/2.png", "s_1_x.png", "s_1_y.png", "s_1_z.png")
    stacks = match_stacks(["a", "b", "c"])
    assert [(stack.name, *(file.parent.name for file in stack.files)) for stack in stacks] == [
        ("1", "a", "b", "c"),
        ("2", "a", "b", "c"),
    ]
    assert [int(image[0, 0]) for image in stacks[0].read()] == [0, 1, 2]
    assert find_stacks(Path(), "multi-focus", folders=["a", "b", "c"]) == stacks
    (stack,) = match_stacks(["*_x.png", "*_y.png", "*_z.png"])
    assert (stack.name, len(stack.files)) == ("s_1", 3)
    (stack,) = match_stacks(["a/1.png", "b/2.jpg", "c/1.png", "c/2.png"])
    assert (stack.name, stack.files[1], len(stack.files)) == ("1", Path("b/2.jpg"), 4)


def test_numbered_images_of_other_names(write):
    write("a/dark_1.png", "a/dark_2.png", "b/1.png", "b/2.png", "c/bright_01.png", "c/bright_02.png")
    stacks = match_stacks(["a", "b", "c"])
    assert [file.name for file in stacks[1].files] == ["dark_2.png", "2.png", "bright_02.png"]


def test_a_part_of_a_data_set(write):
    write(*(f"{folder}/{name}.png" for folder in "abc" for name in ("1", "2", "3")))
    Path("val.txt").write_text("2\n", encoding="utf-8")
    assert [stack.name for stack in find_stacks(Path(), "mine", "val", folders="abc")] == ["2"]


def test_stacks_that_do_not_match(write):
    write("a/1.png", "b/1.png", "c/1.png", "c/2.png")
    with pytest.raises(UserError, match=r"a and c: the images do not pair by name: c has 1 without a partner \(2.png"):
        match_stacks(["a", "b", "c"])
    with pytest.raises(UserError, match=r"a and c: .*: c/2.png without a partner of the same name"):
        find_stacks(Path(), "multi-focus", folders=["a", "b", "c"])
    with pytest.raises(UserError, match=r"two sources of 1 are the file b/1.png; name different ones"):
        match_stacks(["a", "b", "b/"])


def test_a_source_in_another_part_of_the_data_set(write):
    write("a/1.png", "b/1.png", "train/a/1.png", "train/c/1.png")
    with pytest.raises(UserError, match="a has other images with b than with c; put them into one place"):
        find_stacks(Path(), "multi-exposure", folders=["a", "b", "c"])
