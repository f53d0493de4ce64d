import math

import pytest
import torch

from timfuse.data import SyntheticPairs
from timfuse.data.run_pairs import PairSet
from timfuse.data.splits import Split
from timfuse.objectives import FusionLoss
from timfuse.objectives.metrics import BASKET, fusion_metrics, ruler_of
from timfuse.objectives.trivial_fusion import TRIVIAL
from timfuse.training.train_validation import validate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sets():
    return (
        PairSet("a", SyntheticPairs("infrared-visible", 3, 96, 0), Split((1,), (), (0, 2))),
        PairSet("b", SyntheticPairs("infrared-visible", 3, 80, 1), Split((0, 2), (), (1,))),
    )


def test_scores_are_means_over_pairs_and_the_mean_counts_each_set_once(sets):
    loss = FusionLoss()
    scores = validate(TRIVIAL["average"], sets, loss, CPU).scores
    assert list(scores) == ["mean", "a", "b"]
    expected = {}
    for pair_set in sets:
        rows = []
        for _, (first, second, *_) in pair_set.validation_pairs(CPU):
            average = (first + second) / 2
            images = [(image * 255).round() for image in (average, first, second)]
            metrics = fusion_metrics(*images, BASKET)
            rows.append([loss(average, first, second).item(), *(metrics[name].item() for name in BASKET)])
        expected[pair_set.name] = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    for name, values in expected.items():
        assert list(scores[name].values()) == pytest.approx(values, rel=1e-6)
    both = [sum(pair) / 2 for pair in zip(*expected.values(), strict=True)]
    assert list(scores["mean"].values()) == pytest.approx(both, rel=1e-6)


def test_a_task_has_its_own_metrics(sets):
    ruler = ruler_of("multi-focus")
    scores = validate(TRIVIAL["average"], sets, FusionLoss(), CPU, metrics=ruler).scores
    assert all(tuple(row) == ("loss", *ruler) for row in scores.values())


def test_one_set_needs_no_row_of_its_own(sets):
    assert list(validate(TRIVIAL["maximum"], sets[:1], FusionLoss(), CPU).scores) == ["mean"]


def test_metrics_see_eight_bits_and_the_loss_sees_what_the_network_gave(sets):
    def bright(first, second):
        return torch.full_like(first, 1.5)

    def white(first, second):
        return torch.ones_like(first)

    loss = FusionLoss()
    over, clipped = (validate(fuse, sets, loss, CPU).scores["mean"] for fuse in (bright, white))
    assert {name: over[name] for name in BASKET} == {name: clipped[name] for name in BASKET}
    assert over["loss"] > clipped["loss"]


@pytest.mark.parametrize(("count", "shown"), [(0, []), (1, ["a"]), (2, ["a", "b"]), (3, ["a", "a", "b"]), (9, "aab")])
def test_examples_show_both_sources_and_the_fused_image(sets, count, shown):
    examples = validate(TRIVIAL["maximum"], sets, FusionLoss(), CPU, count).examples
    assert [name.partition("/")[0] for name in examples] == list(shown)
    for image in examples.values():
        first, second, fused = torch.from_numpy(image).chunk(3, 1)
        assert torch.equal(torch.maximum(first, second), fused)


def test_metrics_that_are_undefined_for_a_pair_are_left_out_of_the_means():
    class Flat(SyntheticPairs):
        def __getitem__(self, index):
            first, second = super().__getitem__(index)
            return (first, second) if index in self.whole else (first * 0, second)

    def scores(*whole):
        sets = []
        for name, indices in zip("ab", whole, strict=True):
            source = Flat("infrared-visible", 3, 96, 0)
            source.whole = indices
            sets.append(PairSet(name, source, Split((1,), (), (0, 2))))
        return validate(TRIVIAL["average"], sets, FusionLoss(), CPU).scores

    known, partly, nothing = (scores(one, one)["a"] for one in ([0, 2], [0], []))
    alone = validate(
        TRIVIAL["average"],
        [PairSet("a", SyntheticPairs("infrared-visible", 3, 96, 0), Split((1, 2), (), (0,)))],
        FusionLoss(),
        CPU,
    ).scores["mean"]
    for name in ("VIF", "SCD"):
        assert partly[name] == alone[name] != known[name]
        assert math.isnan(nothing[name])
    assert math.isfinite(nothing["loss"])
    assert scores([0], [])["mean"]["VIF"] == alone["VIF"]
    assert math.isnan(scores([], [])["mean"]["VIF"])
