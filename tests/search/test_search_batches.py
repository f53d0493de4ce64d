"""Which pairs a search draws its batches from, and how labelled ones are cut."""

import numpy as np
import pytest
import torch

from timfuse.data import write_pixels
from timfuse.runtime.distribution import Ranks
from timfuse.search.search_batches import VALIDATION_BATCHES, SearchBatches
from timfuse.search.search_config import SearchDataSection

CPU = torch.device("cpu")
COUNT = 20


@pytest.fixture
def root(tmp_path):
    """A data set whose grey levels and masks name the pairs."""
    for index in range(COUNT):
        for folder, level in (("ir", index), ("vis", 100 + index), ("label", 1)):
            write_pixels(tmp_path / folder / f"{index:02d}.png", np.full((24, 32), level, np.uint8))
    return tmp_path


def opened(root, labels=None, seed=0, ranks=None, **settings):
    section = {"root": str(root), "crop": 16, "batch_size": 4, **settings}
    data = SearchDataSection.model_validate(section, strict=False)
    pairs = data.open_pairs("infrared-visible", None, seed, labels=labels, architecture=data.architecture)
    return SearchBatches(
        pairs, seed=seed, validation_seed=data.seed_of(seed), device=CPU, ranks=ranks or Ranks(), **data.crops
    )


def pairs_in(batches):
    return {round(255 * level) for batch in batches for level in batch.first[:, 0, 0, 0].tolist()}


@pytest.mark.parametrize("labels", [None, "masks"])
def test_weights_architecture_and_validation_have_pairs_of_their_own(root, labels):
    batches = opened(root, labels, architecture=0.4, validation=0.2)
    parts = [set(batches.pairs.positions(part)) for part in ("training", "architecture", "validation")]
    assert [len(part) for part in parts] == [10, 6, 4]
    assert pairs_in(batches.weight(0, 10)) == parts[0]
    assert pairs_in(batches.architecture(0, 10)) == parts[1]
    assert pairs_in(batches.validation()) == parts[2]


def test_the_validation_batches_are_always_the_same(root):
    batches = opened(root, seed=1)
    first, again = list(batches.validation()), list(batches.validation())
    assert len(first) == VALIDATION_BATCHES
    assert all(torch.equal(a.first, b.first) for a, b in zip(first, again, strict=True))


def test_labelled_batches_for_the_architecture_are_upright_and_zoomed(tmp_path):
    rows = np.repeat(np.arange(0, 240, 5, dtype=np.uint8)[:, None], 64, axis=1)  # brighter and brighter downwards
    for index in range(8):
        for folder, image in (("ir", rows), ("vis", rows), ("label", np.ones_like(rows))):
            write_pixels(tmp_path / folder / f"{index}.png", image)

    def rises(batches):
        return torch.cat([(batch.first[:, 0, -1, 0] - batch.first[:, 0, 0, 0]) * 255 / 75 for batch in batches])

    labelled, plain = opened(tmp_path, "masks"), opened(tmp_path)
    zoomed = rises(labelled.architecture(0, 20))
    assert (zoomed > 0).all()
    assert zoomed.min() < 0.8 < 1.2 < zoomed.max()
    assert torch.allclose(rises(labelled.validation()), torch.ones(4 * VALIDATION_BATCHES))
    for batches in (labelled.weight(0, 20), plain.weight(0, 20), plain.architecture(0, 20), plain.validation()):
        assert rises(batches).round(decimals=4).unique().tolist() == [-1, 1]


def test_labels_change_no_batch_for_the_weights(root):
    for plain, labelled in zip(opened(root).weight(2, 9), opened(root, "masks").weight(2, 9), strict=True):
        assert torch.equal(plain.first, labelled.first)
        assert torch.equal(plain.second, labelled.second)


def test_processes_share_every_batch(root):
    for kind, steps in (("weight", (3, 6)), ("architecture", (3, 6)), ("validation", ())):
        whole = list(getattr(opened(root), kind)(*steps))
        for rank in range(2):
            parts = getattr(opened(root, ranks=Ranks(rank, 2)), kind)(*steps)
            assert all(torch.equal(part.first, batch.first[rank::2]) for part, batch in zip(parts, whole, strict=True))


def test_several_folders_of_any_task(tmp_path):
    for folder in ("a", "b"):
        for index in range(6):
            for side in ("near", "far"):
                level = index if folder == "a" else 100 + index
                write_pixels(tmp_path / folder / side / f"{index}.png", np.full((24, 32), level, np.uint8))
    data = SearchDataSection(root=(tmp_path / "a", tmp_path / "b"), shares=(1.0, 3.0), crop=16)
    pairs = data.open_pairs("multi-focus", None, 0, architecture=0.5, shares=data.shares)
    batches = SearchBatches(pairs, 4, 16, 0, 0, CPU)
    drawn = [round(255 * level) for batch in batches.weight(0, 100) for level in batch.first[:, 0, 0, 0].tolist()]
    assert np.mean([level >= 100 for level in drawn]) == pytest.approx(0.75, abs=0.06)
    assert len(batches.pairs.sets) == 2
