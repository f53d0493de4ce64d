"""Sources of pairs have one fingerprint exactly if they hold the same."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from timfuse.data import (
    PairSource,
    SyntheticPairs,
    check_pairs,
    find_pairs,
    fingerprint,
    fingerprint_files,
    open_labelled,
    read_pixels,
    write_pixels,
    write_scenes,
)
from timfuse.runtime.errors import UserError

SOURCES: dict[str, Callable[[Path], PairSource]] = {
    "checked": lambda root: check_pairs(find_pairs(root), 32),
    "boxes": lambda root: open_labelled(root, "boxes", minimum_size=32, synthetic_pairs=1, seed=0),
    "masks": lambda root: open_labelled(root, "masks", minimum_size=32, synthetic_pairs=1, seed=0),
}


def change_image(root: Path) -> None:
    path = root / "vis" / "scene_00001.png"
    write_pixels(path, read_pixels(path) ^ np.uint8(1))


def change_name(root: Path) -> None:
    for file in root.glob("*/scene_00002.*"):
        file.rename(file.with_name(f"other{file.suffix}"))


def change_box(root: Path) -> None:
    (root / "boxes" / "scene_00000.txt").write_text("0 0.5 0.5 0.25 0.25\n")


def change_mask(root: Path) -> None:
    path = root / "label" / "scene_00000.png"
    mask = read_pixels(path)
    mask[0, 0] = 1 - min(mask[0, 0], 1)
    write_pixels(path, mask)


@pytest.mark.parametrize("kind", SOURCES)
def test_copies_are_alike_and_any_change_tells(tmp_path: Path, kind: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_scenes(here, 3, height=48, width=48, seed=2)
    shutil.copytree(here, there)
    made = SOURCES[kind](here)
    assert made.fingerprint() == SOURCES[kind](there).fingerprint()
    labels = {"boxes": [change_box], "masks": [change_mask], "checked": []}[kind]
    for change in (change_image, change_name, *labels):
        before = SOURCES[kind](there).fingerprint()
        change(there)
        assert SOURCES[kind](there).fingerprint() != before
    assert [made.size(index) for index in range(3)] == [(48, 48)] * 3


def test_synthetic_pairs() -> None:
    pairs = SyntheticPairs("mri-ct", 6, 32, seed=1)
    assert pairs.fingerprint() == SyntheticPairs("mri-ct", 6, 32, seed=1).fingerprint()
    for other in (("mri-pet", 6, 32, 1), ("mri-ct", 5, 32, 1), ("mri-ct", 6, 33, 1), ("mri-ct", 6, 32, 2)):
        assert pairs.fingerprint() != SyntheticPairs(*other).fingerprint()
    assert pairs.size(0) == pairs[0][0].shape


def test_of_values_and_files(tmp_path: Path) -> None:
    assert fingerprint(["a", [1, 2]]) == fingerprint(("a", (1, 2)))
    assert fingerprint(["a", "b"]) != fingerprint(["ab"])
    with pytest.raises(UserError, match=r"cannot read .*gone: No such file"):
        fingerprint_files([tmp_path / "gone"])
