"""The logits that a search starts with: their expected cost is the budget, and they fall linearly with the cost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.cost import CostModel, Decisions
from timfuse.search.relaxation import relax_all
from timfuse.search.starting_point import logits_at_budget


def with_widths(seed):
    """A model whose costs grow with the widths."""
    generator = torch.Generator().manual_seed(seed)
    rest = torch.rand(3, 3, generator=generator, dtype=torch.float64).cumsum(0).cumsum(1)
    candidates = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64).cumsum(1)
    return CostModel("params", rest, candidates, levels=(0, 1))


@given(st.integers(0, 50), st.floats(0.5, 1.0))
def test_the_expected_cost_is_the_budget(seed, part):
    model, even = with_widths(seed), Decisions(torch.zeros(2, 3, 4), torch.zeros(2, 3))
    cheapest = model.predict(model.cheapest(3))
    mean = model.expected(relax_all(even, 1.0)).item()
    budget = cheapest + part * (mean - cheapest)
    start = logits_at_budget(even, model, budget)
    assert model.expected(relax_all(start, 1.0)).item() == pytest.approx(budget, rel=1e-4)
    assert [tuple(numbers.shape) for numbers in start.tensors] == [(2, 3, 4), (2, 3)]


def test_the_logits_fall_linearly_with_the_cost():
    costs = torch.tensor([[0.0, 1.0, 5.0]], dtype=torch.float64)
    logits = logits_at_budget(Decisions(torch.zeros(1, 1, 3)), CostModel("params", 0.0, costs), 1.5).operators[0, 0]
    assert ((logits[1] - logits[0]) / (logits[2] - logits[0])).item() == pytest.approx(0.2, rel=1e-5)
    assert logits[0] > logits[2]


@pytest.mark.parametrize(("budget", "index"), [(0.0, 0), (1e9, 2)])
def test_a_budget_out_of_reach_is_neared(budget, index):
    costs = torch.tensor([[1.0, 2.0, 5.0]], dtype=torch.float64)
    start = logits_at_budget(Decisions(torch.zeros(1, 1, 3)), CostModel("params", 0.0, costs), budget)
    assert relax_all(start, 1.0).operators[0, 0, index] > 0.999


def test_candidates_of_one_cost_stay_equal():
    costs = torch.ones(1, 3, dtype=torch.float64)
    start = logits_at_budget(Decisions(torch.zeros(1, 2, 3)), CostModel("params", 0.0, costs), 1.0)
    assert (start.operators == 0).all()
