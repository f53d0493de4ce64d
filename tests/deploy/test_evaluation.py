"""Values, means, ranks and intervals of methods' fused images."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from timfuse.data import Pair, luma, match_pairs, read_pixels
from timfuse.deploy.evaluation import TRIVIAL, Evaluation, evaluate
from timfuse.deploy.methods import find_methods
from timfuse.objectives.metrics import BASKET, FIELD_METRICS, fusion_metrics, shown_metrics
from timfuse.runtime.errors import UserError


def evaluation(means, metrics=("MI",), trivial=(), spread=0.0, images=2):
    """An evaluation with the given means, (methods, metrics)."""
    means = np.asarray(means, dtype=float)
    values = means[:, None] + spread * np.linspace(-1, 1, images)[:, None]
    methods = tuple("abcdefgh"[: len(means)])
    return Evaluation(methods, tuple(map(str, range(images))), metrics, values, frozenset(trivial))


def test_equal_methods_share_the_average_rank():
    ranks = evaluation([[3.0], [5.0], [5.0], [1.0], [5.0]]).ranks
    assert ranks[:, 0].tolist() == [4, 2, 2, 5, 2]


def test_what_rounding_parts_is_equal():
    assert evaluation([[0.1 + 0.2], [0.3], [0.3001]]).ranks[:, 0].tolist() == [2.5, 2.5, 1]


def test_lower_is_better_where_the_metric_says_so():
    scored = evaluation([[1.0, 1.0], [2.0, 2.0]], metrics=("VIF", "smear"))
    assert scored.ranks.tolist() == [[2, 1], [1, 2]]
    assert scored.mean_rank.tolist() == [1.5, 1.5]
    assert scored.places.tolist() == [[2, 1], [1, 2]]


def test_metrics_outside_the_ruler_have_ranks_but_no_say_in_the_mean_rank():
    means = [[1.0, 9.0, 0.5], [2.0, 8.0, 0.4], [3.0, 7.0, 0.6]]
    scored = evaluation(means, metrics=("VIF", "MI", "smear"))
    assert scored.ranking == ("VIF", "smear")
    assert scored.ranks.tolist() == [[3, 1, 2], [2, 2, 1], [1, 3, 3]]
    assert scored.mean_rank.tolist() == [2.5, 1.5, 2]
    assert scored.of_image(0).ranking == ("VIF", "smear")
    focus = Evaluation(scored.methods, scored.images, scored.metrics, scored.values, ruler=("VIF",))
    assert focus.of_image(1).mean_rank.tolist() == [3, 2, 1]


def test_metrics_that_are_asked_for_alone_rank_though_none_is_of_the_ruler():
    assert evaluation([[1.0, 5.0], [2.0, 6.0]], metrics=("MI", "EN")).mean_rank.tolist() == [2, 1]


def test_smears_that_nobody_sees_are_equal():
    scored = evaluation([[0.9, 0.0], [0.8, 0.019], [0.7, 0.021], [0.6, 0.02]], metrics=("VIF", "smear"))
    assert scored.ranks[:, 1].tolist() == [2, 2, 4, 2]
    assert scored.mean_rank.tolist() == [1.5, 2, 3.5, 3]
    assert scored.places[:, 1].tolist() == [1, 1, 0, 1]


def test_values_that_are_not_defined_are_left_out_of_means_and_ranks():
    nan = np.nan
    values = np.array([[[1.0, nan], [nan, nan]], [[4.0, 5.0], [2.0, 7.0]], [[nan, 9.0], [9.0, 9.0]]])
    scored = Evaluation(("a", "b", "c"), ("x", "y"), ("VIF", "SCD"), values)
    np.testing.assert_array_equal(scored.mean, [[1, nan], [3, 6], [9, 9]])
    np.testing.assert_array_equal(scored.ranks, [[3, nan], [2, 2], [1, 1]])
    assert scored.mean_rank.tolist() == [3, 2, 1]
    assert scored.places.tolist() == [[0, 0], [2, 2], [1, 1]]
    low, high = scored.interval()
    np.testing.assert_array_equal(low, [[1, nan], [2, 5], [9, 9]])
    np.testing.assert_array_equal(high, [[1, nan], [4, 7], [9, 9]])
    nothing = scored.of_image(1).mean_rank
    np.testing.assert_array_equal(nothing, [nan, 2, 1])


def test_one_method_with_a_value_gets_no_place():
    scored = evaluation([[np.nan], [3.0], [1.0]], trivial="c")
    assert scored.places[:, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(scored.ranks[:, 0], [np.nan, 1, 2])


def test_trivial_methods_are_ranked_but_get_no_place():
    scored = evaluation([[2.0], [1.0], [3.0], [0.0]], trivial="c")
    assert scored.ranks[:, 0].tolist() == [2, 3, 1, 4]
    assert scored.places[:, 0].tolist() == [1, 2, 0, 0]


def test_equals_share_the_better_place():
    assert evaluation([[2.0], [2.0], [1.0]]).places[:, 0].tolist() == [1, 1, 0]


def test_a_method_without_a_competitor_gets_no_place():
    assert evaluation([[2.0], [3.0]], trivial="b").places[:, 0].tolist() == [0, 0]


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=8))
def test_ranks_add_up_whatever_is_equal(means):
    scored = evaluation(means, metrics=("MI", "smear"))
    count = len(means)
    np.testing.assert_allclose(scored.ranks.sum(axis=0), count * (count + 1) / 2)


def test_the_interval_is_that_of_the_normal_distribution_for_many_images():
    values = np.random.default_rng(1).normal(5, 2, (1, 2000, 1))
    low, high = Evaluation(("a",), tuple(map(str, range(2000))), ("MI",), values).interval()
    half = 1.96 * values.std() / np.sqrt(2000)
    np.testing.assert_allclose([low[0, 0], high[0, 0]], [values.mean() - half, values.mean() + half], atol=0.1 * half)


def test_intervals_hold_the_mean_and_shrink_with_more_images():
    widths = []
    for images in (5, 50, 500):
        scored = evaluation([[1.0], [2.0]], spread=1.0, images=images)
        low, high = scored.interval()
        assert (low <= scored.mean).all()
        assert (scored.mean <= high).all()
        widths.append((high - low).max())
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_the_interval_of_one_image_is_its_value():
    scored = evaluation([[3.0]], images=1)
    np.testing.assert_array_equal(scored.interval(), np.full((2, 1, 1), scored.mean[0, 0]))


def test_intervals_are_the_same_every_time():
    scored = evaluation([[1.0], [2.0]], spread=1.0, images=9)
    np.testing.assert_array_equal(scored.interval(), scored.interval())
    assert (scored.interval(seed=1) != scored.interval()).any()


def test_values_are_those_of_the_metrics_on_8_bit_luma(pairs, methods):
    scored = evaluate(pairs, methods)
    assert scored.methods == ("dark", "bright", *TRIVIAL)
    assert scored.images == ("scene_0", "scene_1", "scene_2")
    assert scored.metrics == shown_metrics("infrared-visible")
    assert set(scored.metrics) == {*BASKET, *FIELD_METRICS}
    assert scored.metrics[: len(scored.ranking)] == scored.ranking == BASKET
    paths = methods["bright"][1], pairs[1].first, pairs[1].second
    images = (torch.from_numpy(luma(read_pixels(path)))[None, None] for path in paths)
    expected = fusion_metrics(*images, names=scored.metrics)
    np.testing.assert_allclose(scored.values[1, 1], [float(expected[name]) for name in scored.metrics], rtol=1e-9)


def test_a_task_has_its_ruler(pairs, methods):
    scored = evaluate(pairs, methods, task="multi-focus")
    assert scored.metrics[:4] == scored.ranking == ("Qabf", "VIF", "MEF-SSIM", "SSIM")
    assert evaluate(pairs, methods, ("SCD", "SSIM"), task="multi-focus").ranking == ("SSIM",)


def test_16_bits_count_as_8(pairs, methods, folders):
    for path in methods["dark"]:
        Image.fromarray(read_pixels(path).astype(np.uint16) * 257).save(path)
    assert read_pixels(methods["dark"][0]).dtype == np.uint16
    deep = evaluate(pairs, methods, ("EN", "MI"), trivial=False)
    for path in methods["dark"]:
        Image.fromarray((read_pixels(path) // 257).astype(np.uint8)).save(path)
    np.testing.assert_array_equal(deep.values, evaluate(pairs, methods, ("EN", "MI"), trivial=False).values)


def test_a_pair_too_small_for_a_metric_is_named(pairs, methods):
    for path in (pairs[1].first, pairs[1].second, *(files[1] for files in methods.values())):
        Image.new("L", (4, 4), 9).save(path)
    with pytest.raises(UserError, match=r"scene_1: .*4x4"):
        evaluate(pairs, methods)


def test_a_copy_of_the_second_source_scores_like_the_trivial_copy(pairs):
    scored = evaluate(pairs, {"copied": [pair.second for pair in pairs]})
    rows = dict(zip(scored.methods, scored.values, strict=True))
    np.testing.assert_array_equal(rows["copied"], rows["copy_second"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda methods: {"average": methods["dark"]}, "average is the name of a trivial method"),
        (lambda methods: {"dark": methods["dark"][::-1]}, "have two sizes"),
        (lambda methods: {"dark": [path.with_name("none.png") for path in methods["dark"]]}, "does not exist"),
    ],
)
def test_what_cannot_be_scored(pairs, methods, change, words):
    with pytest.raises(UserError, match=words):
        evaluate(pairs, change(methods))


def test_metrics_are_named_in_any_case_and_once(pairs, methods):
    assert evaluate(pairs, methods, ("en", "EN", "qabf", "Sd")).metrics == ("EN", "Qabf", "SD")


def test_an_unknown_metric_lists_the_known(pairs, methods):
    with pytest.raises(UserError, match=r"no metric MII; choose from .*MI, "):
        evaluate(pairs, methods, ("EN", "MII"))


def test_both_files_of_a_wrong_size_are_named_before_any_scoring(pairs, methods, monkeypatch):
    monkeypatch.setattr("timfuse.deploy.evaluation.fusion_metrics", None)
    Image.new("L", (7, 5)).save(methods["bright"][2])
    with pytest.raises(UserError, match=rf"{pairs[2].first} is 90x61, {methods['bright'][2]} is 7x5"):
        evaluate(pairs, methods)


def test_methods_are_called_like_their_folders_or_as_told(folders, pairs, methods):
    found = find_methods([f"{folders / 'dark'}/", f"my net={folders / 'bright'}"], pairs)
    assert found == {"dark": methods["dark"], "my net": methods["bright"]}


def test_two_methods_of_one_name(folders, pairs):
    with pytest.raises(UserError, match="two methods are called dark; name them"):
        find_methods([str(folders / "dark"), f"dark={folders / 'bright'}"], pairs)


def test_missing_fused_images_are_listed(folders, pairs):
    (folders / "dark" / "scene_1.png").unlink()
    with pytest.raises(UserError, match="scene_1"):
        find_methods([str(folders / "dark")], pairs)


@pytest.mark.slow
@pytest.mark.parametrize(("data_set", "count"), [("tno", 5), ("roadscene", 23)])
def test_trivial_methods_score_as_the_field_measured_them(shared, data_set, count):
    """The reference prints five digits."""
    names = (shared / "data" / data_set / "val.txt").read_text().split()
    root = shared / "data" / data_set
    pairs = [pair for pair in match_pairs(str(root / "ir"), str(root / "vis")) if pair.name in names]
    assert len(pairs) == count
    scored = evaluate([Pair(*pair) for pair in pairs], {}, FIELD_METRICS)
    means = dict(zip(scored.methods, scored.mean, strict=True))
    with open(shared / "reference" / "peers-val.csv", encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file) if row["dataset"] == data_set}
    for ours, theirs in (("average", "average"), ("maximum", "maximum"), ("copy_second", "copy_vis")):
        expected = [float(rows[theirs][metric]) for metric in FIELD_METRICS]
        np.testing.assert_allclose(means[ours], expected, rtol=5e-5, err_msg=ours)
