import pytest
import torch

from timfuse.cost.budget import Budget
from timfuse.cost.budget_report import TRIES, choose_measured
from timfuse.cost.cost_model import CostModel
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.runtime.errors import UserError
from timfuse.search import Spending

# Five operators of one edge: the dearer, the more probable.
PROBABILITIES = torch.tensor([[[0.05, 0.1, 0.2, 0.25, 0.4]]])
MODEL = CostModel("ms", 10.0, torch.tensor([[0.0, 2.0, 4.0, 6.0, 8.0]], dtype=torch.float64))


def choose(budget, measured):
    """Choose with a table of measured times; return the choice, its time and what was measured on the way."""
    taken = []

    def measure(choices):
        taken.append(choices[0][0])
        return measured[choices[0][0]]

    choices, time = choose_measured(PROBABILITIES, MODEL, Budget("ms", budget), measure)
    return choices[0][0], time, taken


def test_what_meets_the_budget_at_once_is_taken():
    assert choose(18.0, [10, 12, 14, 16, 18.0]) == (4, 18.0, [4])
    assert choose(15.0, [10, 12, 14, 16, 18]) == (2, 14, [2])


def test_the_prediction_is_tightened_until_the_measured_time_is_within():
    # All take a quarter more than predicted.
    assert choose(18.0, [12.5, 15, 17.5, 20, 22.5]) == (2, 17.5, [4, 2])
    # What is missed by a hair is not chosen again.
    assert choose(18.0, [10, 12, 14, 16, 18.01]) == (3, 16, [4, 3])


def test_the_cheapest_has_the_last_word():
    assert choose(18.0, [17.9, 18.1, 18.1, 18.1, 18.1]) == (0, 17.9, [4, 3, 2, 1, 0])
    assert TRIES == 5


def test_of_networks_that_all_miss_the_budget_the_one_that_does_by_least_is_kept():
    assert choose(18.0, [20, 19, 21, 22, 23.0]) == (1, 19, [4, 1, 0])
    assert choose(9.0, [10, 12, 14, 16, 18.0]) == (0, 10, [0])


def test_what_was_spent_comes_back_from_the_provenance():
    cells = (CellGenotype("successive", ("identity",)),)
    spending = Spending("20 ms", "ms", 19.5, 20.3, False, "space.channels=4 would (9 ms)")
    genotype = Genotype("x", "infrared-visible", "fusion", 2, cells, provenance={"budget": spending.provenance})
    assert Spending.of(genotype) == spending
    assert str(spending) == "20 ms: predicted 19.5 ms, measured 20.3 ms"
    with pytest.raises(UserError) as caught:
        spending.check()
    assert str(caught.value) == (
        "the network that was found takes 20.3 ms, 0.3 ms above cost.budget = 20 ms; space.channels=4 would (9 ms)"
    )
    met = Spending("50kparams", "params", 49_000, 49_000, True)
    assert "advice" not in met.provenance
    assert str(met) == "50kparams: predicted 49 kparams, counted 49 kparams"
    met.check()
    assert Spending.of(Genotype("x", "infrared-visible", "fusion", 2, cells)) is None
