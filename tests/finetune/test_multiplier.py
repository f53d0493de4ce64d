"""The multiplier: dual ascent finds the price of a constraint, and no price is negative."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.finetune.multiplier import Multiplier


@pytest.mark.parametrize("start", [0.0, 7.0])
def test_descent_and_ascent_find_minimum_and_price(start):
    # min x^2 subject to 1 - x <= 0: x = 1, and 2 x - mu = 0 there.
    x = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    multiplier = Multiplier(0.05, start)
    optimizer = torch.optim.SGD([x], lr=0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        (x**2 + multiplier.value * (1 - x)).backward()
        optimizer.step()
        multiplier.ascend(1 - x.item())
    assert x.item() == pytest.approx(1, abs=1e-6)
    assert multiplier.value == pytest.approx(2, abs=1e-6)


def test_a_constraint_that_holds_anyway_costs_nothing():
    # min x^2 subject to -1 - x <= 0.
    x, multiplier = 3.0, Multiplier(0.05, 4.0)
    for _ in range(2000):
        x -= 0.05 * (2 * x - multiplier.value)
        multiplier.ascend(-1 - x)
    assert x == pytest.approx(0, abs=1e-6)
    assert multiplier.value == 0


@given(
    rate=st.floats(1e-6, 1e3),
    start=st.floats(0, 1e3),
    path=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
)
def test_the_price_is_never_negative_and_moves_with_the_constraint(rate, start, path):
    multiplier = Multiplier(rate, start)
    for constraint in path:
        before = multiplier.value
        multiplier.ascend(constraint)
        assert multiplier.value >= 0
        assert multiplier.value == max(0, before + rate * constraint)
        assert (multiplier.value >= before) == (constraint >= 0) or multiplier.value == before


def test_steps_by_hand():
    multiplier = Multiplier(0.5, 1.0)
    path = []
    for constraint in (1.0, -2.0, -3.0, 0.5):
        multiplier.ascend(constraint)
        path.append(multiplier.value)
    assert path == [1.5, 0.5, 0.0, 0.25]
