"""Checking every pair before work starts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timfuse.data import find_pairs
from timfuse.data.folder_pairs import check_pairs
from timfuse.runtime.errors import UserError


def write(path: Path, size: tuple[int, int] = (40, 32), value: int = 128, dtype: type = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, dtype)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index, name in enumerate(("c", "a", "b")):
        write(tmp_path / "ir" / f"{name}.png", value=10 * index)
        write(tmp_path / "vis" / f"{name}.bmp", value=10 * index + 5)
    return tmp_path


def test_checked_pairs_are_the_luma_of_each_pair_in_order(root: Path) -> None:
    checked = check_pairs(find_pairs(root), 32)
    assert checked.names == ("a", "b", "c")
    assert [(int(a[0, 0]), int(b[0, 0])) for a, b in (checked[i] for i in range(3))] == [(10, 15), (20, 25), (0, 5)]


def test_different_sizes_and_too_small(root: Path) -> None:
    pairs = find_pairs(root)
    with pytest.raises(UserError, match="is 40x32, the minimum is 33x33"):
        check_pairs(pairs, 33)
    write(root / "ir" / "b.png", size=(32, 40))
    with pytest.raises(UserError, match=r"pair b has two sizes: .*b\.png is 32x40, .*b\.bmp is 40x32"):
        check_pairs(pairs, 16)
    for side in ("ir/b.png", "vis/b.bmp"):
        write(root / side, size=(2, 1))
    with pytest.raises(UserError, match=r"b\.png is 2x1, the minimum is 16x16"):
        check_pairs(pairs, 16)


def test_a_damaged_file_is_found_before_the_work(root: Path) -> None:
    pairs = find_pairs(root)
    (root / "vis" / "c.bmp").write_bytes(b"BM rubbish")
    with pytest.raises(UserError, match=r"c\.bmp"):
        check_pairs(pairs, 16)


def test_pairs_beyond_the_cache_are_read_again(root: Path) -> None:
    pairs = find_pairs(root)
    cached, uncached = check_pairs(pairs, 16), check_pairs(pairs, 16, cache_megabytes=0)
    for index in range(3):
        for kept, again in zip(cached[index], uncached[index], strict=True):
            np.testing.assert_array_equal(kept, again)
    write(root / "ir" / "a.png", value=99)
    assert int(cached[0][0][0, 0]) == 10
    assert int(uncached[0][0][0, 0]) == 99
