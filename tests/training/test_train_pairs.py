from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from timfuse.data import write_pixels
from timfuse.runtime.errors import UserError
from timfuse.training.train_config import DataSection
from timfuse.training.train_pairs import open_pairs

CPU = torch.device("cpu")


@pytest.fixture
def make_set(tmp_path):
    """A function that writes a data set of pairs whose grey level names the set and the pair."""

    def make(name: str, count: int, level: int, size: tuple[int, int] = (48, 56)) -> Path:
        for index in range(count):
            for side in ("ir", "vis"):
                write_pixels(tmp_path / name / side / f"{index:02d}.png", np.full(size, level + index, np.uint8))
        return tmp_path / name

    return make


def opened(seed=0, **settings):
    return open_pairs(DataSection.model_validate({"crop": 16, **settings}, strict=False), "infrared-visible", seed)


def levels(pairs, steps):
    batches = pairs.batches(0, steps, 0, CPU)
    return [round(255 * level) for batch in batches for level in batch.first[:, 0, 0, 0].tolist()]


def test_synthetic_pairs_by_default():
    pairs = opened(synthetic_pairs=10, validation=0.2, batch_size=3)
    assert pairs.training_count == 8
    (validation,) = pairs.validation
    assert (validation.name, len(validation.indices)) == ("synthetic", 2)
    batch = next(pairs.batches(0, 1, 0, CPU))
    assert batch.first.shape == batch.second.shape == (3, 1, 16, 16)


def test_one_folder_is_drawn_without_replacement_and_apart_from_its_validation_pairs(make_set):
    pairs = opened(root=make_set("a", 10, 100), validation=0.2, batch_size=2)
    drawn = levels(pairs, 4)
    held = {100 + index for index in pairs.validation[0].indices}
    assert len(held) == 2
    assert sorted(drawn) == sorted(set(range(100, 110)) - held)


def test_lists_of_names_are_kept(make_set):
    root = make_set("a", 6, 100)
    (root / "train.txt").write_text("00\n01\n")
    (root / "val.txt").write_text("04\n05\n")
    pairs = opened(root=root, batch_size=2)
    assert sorted(levels(pairs, 1)) == [100, 101]
    assert pairs.validation[0].indices == (4, 5)


@pytest.mark.parametrize(("shares", "expected"), [(None, 0.5), ((1.0, 3.0), 0.75), ((2.0, 0.5), 0.2)])
def test_folders_are_mixed_by_their_shares_whatever_their_sizes(make_set, shares, expected):
    roots = [make_set("small", 4, 50), make_set("large", 30, 150)]
    pairs = opened(root=roots, shares=shares, batch_size=8)
    drawn = levels(pairs, 250)
    large = [level for level in drawn if level >= 150]
    assert len(large) / len(drawn) == pytest.approx(expected, abs=0.04)
    assert [validation.name for validation in pairs.validation] == ["small", "large"]
    assert pairs.training_count == 3 + 27
    counts = Counter(large)
    assert len(counts) == 27  # each pair of a folder comes as often as the others
    assert max(counts.values()) < 3 * len(large) / 27
    held = {50 + index for index in pairs.validation[0].indices} | {
        150 + index for index in pairs.validation[1].indices
    }
    assert not held & set(drawn)


def test_a_batch_depends_on_the_seed_and_its_step_alone(make_set):
    settings = {"root": [make_set("a", 5, 50), make_set("b", 5, 150)], "batch_size": 4}
    pairs = opened(**settings)
    later = [batch.first for batch in pairs.batches(3, 6, 0, CPU)]
    again = [batch.first for batch in opened(**settings).batches(0, 6, 1, CPU)][3:]
    assert all(torch.equal(*both) for both in zip(later, again, strict=True))
    assert levels(pairs, 6) != levels(opened(seed=1, **settings), 6)


def test_validation_pairs_are_whole_and_spread_over_the_list(make_set):
    root = make_set("a", 12, 100, size=(48, 56))
    (root / "train.txt").write_text("00\n01\n")
    (root / "val.txt").write_text("\n".join(f"{index:02d}" for index in range(2, 12)))
    (validation,) = opened(root=root, validation_pairs=4).validation
    assert validation.indices == (2, 5, 8, 11)
    batches = list(validation.pairs(CPU))
    assert [batch.first.shape for batch in batches] == [(1, 1, 48, 56)] * 4
    assert [round(255 * batch.second.max().item()) for batch in batches] == [102, 105, 108, 111]
    (few,) = opened(root=root, validation_pairs=50).validation
    assert few.indices == tuple(range(2, 12))


def test_folders_of_one_name_are_told_apart(make_set):
    roots = [make_set("x/ivif", 4, 10), make_set("y/ivif", 4, 20), make_set("z", 4, 30)]
    assert [validation.name for validation in opened(root=roots).validation] == [str(roots[0]), str(roots[1]), "z"]


def test_too_few_pairs_and_too_small_ones(make_set):
    with pytest.raises(UserError, match="1 pair cannot be split into training and validation; at least 2 are needed"):
        opened(root=make_set("one", 1, 10))
    with pytest.raises(UserError, match="is 56x48, the minimum is 64x64; remove the pair or choose a smaller crop"):
        opened(root=make_set("small", 4, 10), crop=64)


def test_other_tasks_find_their_folders(make_set, tmp_path):
    root = make_set("m", 4, 10)
    (root / "ir").rename(root / "under")
    (root / "vis").rename(root / "over")
    data = DataSection(root=root, crop=16)
    assert open_pairs(data, "multi-exposure", 0).training_count == 3
    with pytest.raises(UserError):
        open_pairs(data, "infrared-visible", 0)


def test_the_fingerprint_tells_contents_and_purposes(make_set):
    one, other = make_set("one", 6, 10), make_set("other", 6, 40)
    prints = [opened(root=root).fingerprint() for root in (one, [one, other], [other, one])]
    prints += [opened(root=one, **settings).fingerprint() for settings in ({"seed": 1}, {"validation_pairs": 1})]
    prints.append(opened(root=one, validation=0.5).fingerprint())
    assert opened(root=one, batch_size=3).fingerprint() == prints[0]
    write_pixels(one / "ir" / "05.png", np.full((48, 56), 200, np.uint8))
    prints.append(opened(root=one).fingerprint())
    assert len(set(prints)) == len(prints) - 1  # of one validation pair there are no fewer
    assert prints.count(prints[0]) == 2


def test_real_folders(shared):
    roots = [shared / "data" / name for name in ("tno", "msrs")]
    pairs = opened(root=roots, crop=64)
    assert pairs.training_count == 18 + 49
    assert [len(validation.indices) for validation in pairs.validation] == [5, 8]
