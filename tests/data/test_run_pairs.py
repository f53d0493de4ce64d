"""The pairs of a run: mixed by shares for training, whole for validation, and no pair in two parts."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from timfuse.data import open_pairs, write_pixels
from timfuse.genotypes import TASKS
from timfuse.runtime.distribution import Ranks
from timfuse.runtime.errors import UserError

SETTINGS = {"batch_size": 4, "crop": 16, "seed": 0}


@pytest.fixture
def make_set(tmp_path):
    """A function that writes a data set of pairs whose grey level names the set and the pair, with a mask and a box."""

    def make(name: str, count: int, level: int, size=(48, 56), sides=("ir", "vis"), classes="person\ncar\n") -> Path:
        root = tmp_path / name
        for index in range(count):
            for side in sides:
                write_pixels(root / side / f"{index:02d}.png", np.full(size, level + index, np.uint8))
            write_pixels(root / "label" / f"{index:02d}.png", np.full(size, index % 2, np.uint8))
            (root / "boxes").mkdir(exist_ok=True)
            (root / "boxes" / f"{index:02d}.txt").write_text(f"{index % 2} 0.5 0.5 1 1\n")
        (root / "classes.txt").write_text(classes)
        return root

    return make


def opened(*roots, **settings):
    return open_pairs(roots or [None], **({"task": "infrared-visible", "minimum_size": 16} | settings))


def levels(batches):
    return [round(255 * level) for batch in batches for level in batch.first[:, 0, 0, 0].tolist()]


def drawn(pairs, steps, name="train", **changes):
    return levels(pairs.batches(name, 0, steps, **(SETTINGS | changes)))


def held_out(pairs):
    return [each.split.validation for each in pairs.sets]


@pytest.mark.parametrize("task", TASKS)
def test_synthetic_pairs_of_every_task(task):
    pairs = opened(task=task, synthetic_pairs=10, validation=0.2)
    assert [len(pairs.positions(part)) for part in ("training", "architecture", "validation")] == [8, 0, 2]
    (pair_set,) = pairs.sets
    assert (pair_set.name, len(list(pair_set.validation_pairs("cpu")))) == ("synthetic", 2)
    (batch,) = pairs.batches("train", 0, 1, batch_size=3, crop=16, seed=0)
    assert batch.first.shape == batch.second.shape == (3, 1, 16, 16)
    assert batch[2:] == (None, None, None)


def test_one_folder_is_drawn_without_replacement_and_apart_from_its_validation_pairs(make_set):
    pairs = opened(make_set("a", 10, 100), validation=0.2)
    held = {100 + index for index in pairs.positions("validation")}
    assert len(held) == 2
    assert sorted(drawn(pairs, 4, batch_size=2)) == sorted(set(range(100, 110)) - held)


def test_every_part_has_batches_of_its_own_pairs(make_set):
    pairs = opened(make_set("a", 12, 100), make_set("b", 9, 150), validation=0.2, architecture=0.5)
    parts = [pairs.positions(part) for part in ("training", "architecture", "validation")]
    assert sorted(index for part in parts for index in part) == list(range(21))
    level = [100 + index for index in range(12)] + [150 + index for index in range(9)]
    for part, positions in zip(("training", "architecture", "validation"), parts, strict=True):
        assert set(drawn(pairs, 60, part=part)) == {level[position] for position in positions}


def test_lists_of_names_are_kept(make_set):
    root = make_set("a", 6, 100)
    (root / "train.txt").write_text("00\n01\n")
    (root / "val.txt").write_text("04\n05\n")
    pairs = opened(root)
    assert sorted(drawn(pairs, 1, batch_size=2)) == [100, 101]
    assert pairs.positions("validation") == (4, 5)


@pytest.mark.parametrize(("shares", "expected"), [(None, 0.5), ((1.0, 3.0), 0.75), ((2.0, 0.5), 0.2)])
def test_folders_are_mixed_by_their_shares_whatever_their_sizes(make_set, shares, expected):
    pairs = opened(make_set("small", 4, 50), make_set("large", 30, 150), shares=shares)
    levels = drawn(pairs, 250, batch_size=8)
    large = [level for level in levels if level >= 150]
    assert len(large) / len(levels) == pytest.approx(expected, abs=0.04)
    assert [each.name for each in pairs.sets] == ["small", "large"]
    assert len(pairs.positions("training")) == 3 + 27
    counts = Counter(large)
    assert len(counts) == 27  # each pair of a folder comes as often as the others
    assert max(counts.values()) < 3 * len(large) / 27
    held = {level + index for level, positions in zip((50, 150), held_out(pairs), strict=True) for index in positions}
    assert not held & set(levels)


def test_a_batch_depends_on_the_seed_and_its_step_alone(make_set):
    roots = make_set("a", 5, 50), make_set("b", 5, 150)
    pairs = opened(*roots)
    later = [batch.first for batch in pairs.batches("train", 3, 6, **SETTINGS)]
    again = [batch.first for batch in opened(*roots).batches("train", 0, 6, workers=1, **SETTINGS)][3:]
    assert all(torch.equal(*both) for both in zip(later, again, strict=True))
    assert drawn(pairs, 6) != drawn(pairs, 6, seed=1)
    assert drawn(pairs, 6) != drawn(pairs, 6, name="other")
    for rank in range(2):
        parts = pairs.batches("train", 3, 6, ranks=Ranks(rank, 2), **SETTINGS)
        assert all(torch.equal(part.first, whole[rank::2]) for part, whole in zip(parts, later, strict=True))


def test_validation_pairs_are_whole_and_spread_over_the_list(make_set):
    root = make_set("a", 12, 100)
    (root / "train.txt").write_text("00\n01\n")
    (root / "val.txt").write_text("\n".join(f"{index:02d}" for index in range(2, 12)))
    pairs = opened(root, validation_pairs=4)
    assert pairs.positions("validation") == (2, 5, 8, 11)
    names, batches = zip(*pairs.sets[0].validation_pairs("cpu"), strict=True)
    assert names == ("a/02", "a/05", "a/08", "a/11")
    assert [batch.first.shape for batch in batches] == [(1, 1, 48, 56)] * 4
    assert [round(255 * batch.second.max().item()) for batch in batches] == [102, 105, 108, 111]
    assert opened(root, validation_pairs=50).positions("validation") == tuple(range(2, 12))
    assert opened(root).positions("validation") == tuple(range(2, 12))


@pytest.mark.parametrize("task", ["infrared-visible", "multi-exposure"])
@pytest.mark.parametrize("labels", ["boxes", "masks"])
def test_labelled_pairs_of_several_folders(make_set, labels, task):
    sides = ("ir", "vis") if task == "infrared-visible" else ("under", "over")
    roots = make_set("a", 6, 50, sides=sides), make_set("b", 4, 150, sides=sides)
    pairs = opened(*roots, task=task, labels=labels, architecture=0.5)
    assert (pairs.source.labels, len(pairs.source.classes)) == (labels, 2)
    for part in ("training", "architecture", "validation"):
        for batch in pairs.batches("x", 0, 5, part=part, scale=(1.0, 1.2), upright=True, **SETTINGS | {"crop": 40}):
            parity = (255 * batch.first[:, 0, 0, 0]).round() % 2
            if labels == "boxes":
                assert [each.classes.tolist() for each in batch.objects] == [[kind] for kind in parity.tolist()]
            else:
                assert [mask.unique().tolist() for mask in batch.masks] == [[kind] for kind in parity.tolist()]
    for each in pairs.sets:
        for _, batch in each.validation_pairs("cpu"):
            assert len(batch.objects if labels == "boxes" else batch.masks) == 1


def test_folders_whose_labels_mean_other_classes_are_refused(make_set):
    roots = make_set("a", 6, 50), make_set("b", 4, 150, classes="car\nperson\n")
    with pytest.raises(UserError, match=r"a has the classes person, car, and b has car, person; give data sets with"):
        opened(*roots, labels="boxes")
    opened(*roots)


def test_a_search_leaves_pairs_without_a_mask_out_of_the_parts_that_it_has_without_labels(make_set):
    root = make_set("a", 8, 10)

    def named(pairs, part):
        return {pairs.source.names[position] for position in pairs.positions(part)}

    whole = opened(root, architecture=0.5)
    missing = whole.source.names[whole.positions("training")[0]]
    (root / "labelled.txt").write_text("\n".join(name for name in whole.source.names if name != missing))
    labelled = opened(root, labels="masks", architecture=0.5)
    assert named(labelled, "training") == named(whole, "training") - {missing}
    for part in ("architecture", "validation"):
        assert named(labelled, part) == named(whole, part)
    kept = [name for name in whole.source.names if name not in named(whole, "validation")]
    (root / "labelled.txt").write_text("\n".join(kept))
    with pytest.raises(UserError, match=r"none of the validation pairs in .*a has a label"):
        opened(root, labels="masks", architecture=0.5)


def test_folders_of_one_name_are_told_apart(make_set):
    roots = [make_set("x/ivif", 4, 10), make_set("y/ivif", 4, 20), make_set("z", 4, 30)]
    assert [each.name for each in opened(*roots).sets] == [str(roots[0]), str(roots[1]), "z"]


def test_too_few_pairs_and_too_small_ones(make_set):
    with pytest.raises(UserError, match="1 pair cannot be split into training and validation; at least 2 are needed"):
        opened(make_set("one", 1, 10))
    with pytest.raises(UserError, match="is 56x48, the minimum is 64x64; remove the pair or choose a smaller crop"):
        opened(make_set("small", 4, 10), minimum_size=64)


def test_pairs_of_other_tasks_and_in_named_folders(make_set):
    root = make_set("m", 4, 10, sides=("under", "over"))
    assert len(opened(root, task="multi-exposure").positions("training")) == 3
    assert len(opened(root, task="mine", folders=("over", "under")).positions("training")) == 3
    with pytest.raises(UserError, match="holds no infrared-visible pairs"):
        opened(root)


def test_blocks_of_training_pairs_share_no_folder_and_no_series(make_set):
    pairs = opened(make_set("a", 8, 10), make_set("b", 5, 40))
    blocks = pairs.scene_blocks()
    assert sorted(index for block in blocks for index in block) == sorted(pairs.positions("training"))
    assert all(block[-1] < 8 or block[0] >= 8 for block in blocks)
    assert max(map(len, blocks)) <= 3


def test_synthetic_pairs_may_have_a_seed_of_their_own():
    one, other = (opened(synthetic_pairs=10, seed=seed, synthetic_seed=7) for seed in (0, 1))
    assert np.array_equal(one.source[0][0], other.source[0][0])
    assert one.positions("validation") != other.positions("validation")
    assert not np.array_equal(one.source[0][0], opened(synthetic_pairs=10, seed=0).source[0][0])


def test_the_fingerprint_tells_contents_and_parts(make_set):
    one, other = make_set("one", 6, 10), make_set("other", 6, 40)
    prints = [opened(*roots).fingerprint() for roots in ([one], [one, other], [other, one])]
    changes = {"seed": 1}, {"validation": 0.5}, {"architecture": 0.5}, {"labels": "boxes"}, {"labels": "masks"}
    prints += [opened(one, **settings).fingerprint() for settings in changes]
    assert opened(one).fingerprint() == prints[0]
    write_pixels(one / "ir" / "05.png", np.full((48, 56), 200, np.uint8))
    prints.append(opened(one).fingerprint())
    assert len(set(prints)) == len(prints)


def test_real_folders(shared):
    pairs = opened(*(shared / "data" / name for name in ("tno", "msrs")), minimum_size=64, validation_pairs=8)
    assert len(pairs.positions("training")) == 18 + 49
    assert [len(positions) for positions in held_out(pairs)] == [5, 8]


@pytest.mark.parametrize(
    ("task", "folder"),
    [
        ("infrared-visible", "roadscene"),
        ("mri-ct", "medical/mri-ct"),
        ("mri-pet", "medical/mri-pet"),
        ("mri-spect", "medical/mri-spect"),
        ("multi-exposure", "mef"),
        ("multi-focus", "mff"),
    ],
)
def test_real_pairs_of_every_task(shared, task, folder):
    pairs = opened(shared / "data" / folder, task=task, architecture=0.5)
    assert all(pairs.positions(part) for part in ("training", "architecture", "validation"))
