"""Sources of pairs have one fingerprint exactly if they hold the same."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from timfuse.data import SyntheticPairs, open_source, read_pixels, write_pixels, write_scenes
from timfuse.data.fingerprint import fingerprint, fingerprint_files
from timfuse.data.pair_source import Labels
from timfuse.runtime.errors import UserError


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


@pytest.mark.parametrize("labels", [None, "boxes", "masks"])
def test_copies_are_alike_and_any_change_tells(tmp_path: Path, labels: Labels | None) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_scenes(here, 3, height=48, width=48, seed=2)
    shutil.copytree(here, there)
    made = open_source(here, labels=labels)
    assert made.fingerprint() == open_source(there, labels=labels).fingerprint()
    for change in (change_image, change_name, *{"boxes": [change_box], "masks": [change_mask], None: []}[labels]):
        before = open_source(there, labels=labels).fingerprint()
        change(there)
        assert open_source(there, labels=labels).fingerprint() != before
    assert [made.size(index) for index in range(3)] == [(48, 48)] * 3


def test_synthetic_pairs() -> None:
    pairs = SyntheticPairs("mri-ct", 6, 32, seed=1)
    assert pairs.fingerprint() == SyntheticPairs("mri-ct", 6, 32, seed=1).fingerprint()
    for other in (("mri-pet", 6, 32, 1), ("mri-ct", 5, 32, 1), ("mri-ct", 6, 33, 1), ("mri-ct", 6, 32, 2)):
        assert pairs.fingerprint() != SyntheticPairs(*other).fingerprint()
    assert pairs.size(0) == pairs[0][0].shape
    kinds = [SyntheticPairs("infrared-visible", 2, 32, seed=0, labels=labels) for labels in (None, "boxes", "masks")]
    assert len({each.fingerprint() for each in kinds}) == 3


def test_of_values_and_files(tmp_path: Path) -> None:
    assert fingerprint(["a", [1, 2]]) == fingerprint(("a", (1, 2)))
    assert fingerprint(["a", "b"]) != fingerprint(["ab"])
    with pytest.raises(UserError, match=r"cannot read .*gone: No such file"):
        fingerprint_files([tmp_path / "gone"])
