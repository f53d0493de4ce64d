"""The promise of a finetuning under a constraint: what it is measured by, and who keeps it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timfuse.finetune.promise import Promise

losses = st.floats(-20, 20).map(lambda value: round(value, 3))
parts = st.floats(0, 1).map(lambda value: round(value, 3))


@given(losses, losses, parts, losses)
def test_who_keeps_it_is_ahead_of_every_method_without_a_network(start, trivial, tolerance, loss):
    if Promise(start, trivial, 1.0, tolerance).kept(loss):
        assert loss < trivial
        assert start >= trivial or loss - start <= tolerance * (trivial - start) + 1e-9


@given(losses, losses, parts, losses, losses)
def test_it_does_not_depend_on_where_the_loss_has_its_zero(start, trivial, tolerance, loss, shift):
    here, there = Promise(start, trivial, 1.0, tolerance), Promise(start + shift, trivial + shift, 1.0, tolerance)
    assert here.excess(loss) == pytest.approx(there.excess(loss + shift), abs=1e-9)


@given(losses, parts)
def test_a_method_without_a_network_breaks_its_own_promise(trivial, tolerance):
    assert not Promise(start=trivial, trivial=trivial, spread=1.0, tolerance=tolerance).kept(trivial)


def test_a_network_that_is_behind_at_the_start_has_to_learn_first():
    promise = Promise(start=-3.0, trivial=-4.0, spread=2.0, tolerance=0.1)
    assert [promise.kept(loss) for loss in (-3.0, -3.9, -4.0, -4.01)] == [False, False, False, True]
    assert promise.excess(-3.0) == 0.5


def test_a_part_of_the_lead_may_be_given_up():
    promise = Promise(start=-5.0, trivial=-4.0, spread=2.0, tolerance=0.25)
    assert [promise.kept(loss) for loss in (-6.0, -5.0, -4.75, -4.74)] == [True, True, True, False]
    assert promise.given_up(-4.5) == 0.5
    assert promise.excess(-4.5) == 0.125
