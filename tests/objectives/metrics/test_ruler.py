"""Which metrics rank methods, and how ranks are made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timfuse.genotypes import TASKS
from timfuse.objectives.metrics import BASKET, FIELD_METRICS, METRICS, is_better, ranks, ruler_of, shown_metrics
from timfuse.objectives.metrics.ruler import RULERS

GAMED = {"MI", "EN", "SD", "SF", "AG", "CC", "PSNR"}  # a formula wins each of them


@pytest.mark.parametrize("task", [*TASKS, "mine"])
def test_no_ruler_has_a_metric_that_a_formula_wins(task):
    ruler, shown = ruler_of(task), shown_metrics(task)
    assert len(set(ruler)) == len(ruler)
    assert not GAMED & set(ruler)
    assert shown[: len(ruler)] == ruler
    assert sorted(shown) == sorted({*BASKET, *FIELD_METRICS})


def test_rulers_are_of_tasks_and_of_metrics():
    assert RULERS.keys() <= TASKS.keys()
    assert {name for ruler in RULERS.values() for name in ruler} <= set(BASKET) <= set(METRICS)
    assert ruler_of("multi-exposure")[0] == "MEF-SSIM"
    assert "SCD" not in ruler_of("multi-focus")


def test_only_smears_have_a_floor():
    assert {name: metric.floor for name, metric in METRICS.items() if np.isfinite(metric.floor)} == {"smear": 0.02}


def test_smears_below_the_floor_share_the_mean_of_their_ranks():
    means = np.array([[0.0], [0.02], [0.0199], [0.0201], [0.5], [np.nan]])
    np.testing.assert_array_equal(ranks(means, ["smear"])[:, 0], [2, 2, 2, 4, 5, np.nan])
    assert is_better(means, ["smear"])[0, :, 0].tolist() == [False, False, False, True, True, False]


def test_more_is_better_but_for_smears():
    means = np.array([[0.5, 0.5], [0.4, 0.4], [0.4, 0.4]])
    assert ranks(means, ["VIF", "smear"]).tolist() == [[1, 3], [2.5, 1.5], [2.5, 1.5]]


def test_infinities_are_equal_and_what_is_not_a_number_has_no_rank():
    means = np.array([[np.inf], [np.inf], [20.0], [np.nan]])
    np.testing.assert_array_equal(ranks(means, ["PSNR"])[:, 0], [1.5, 1.5, 3, np.nan])


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=9))
def test_ranks_by_smears_add_up(values):
    count = len(values)
    assert ranks(np.array(values)[:, None], ["smear"]).sum() == pytest.approx(count * (count + 1) / 2)
