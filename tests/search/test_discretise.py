import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.cost import CostModel
from timfuse.operators import build_supernet, inherited_weights
from timfuse.search.discretise import choose, choose_measured, choose_within, reasons

OPERATORS = ["dense_k3_d1", "residual_k3_d1", "identity"]


def test_the_most_probable_candidate_of_each_edge_is_kept():
    probabilities = torch.tensor([[[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], [[0.05, 0.15, 0.8], [0.3, 0.4, 0.3]]])
    assert choose(probabilities) == [[1, 0], [2, 1]]
    assert reasons(probabilities, OPERATORS, choose(probabilities)) == [
        ["residual_k3_d1 0.50 before identity 0.30", "dense_k3_d1 0.60 before residual_k3_d1 0.30"],
        ["identity 0.80 before residual_k3_d1 0.15", "residual_k3_d1 0.40 before dense_k3_d1 0.30"],
    ]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 9), st.integers(0, 10**6))
def test_the_reason_of_an_edge_names_its_choice_first(cells, steps, count, seed):
    names = [f"operator{index}" for index in range(count)]
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randint(1, 4, (cells, steps, count), generator=generator) / 10  # many are equal
    choices = choose(probabilities)
    texts = reasons(probabilities, names, choices)
    for cell in range(cells):
        for step in range(steps):
            first, value, before, second, runner_up = texts[cell][step].split()
            assert (first, before) == (names[choices[cell][step]], "before")
            assert first != second
            assert float(value) >= float(runner_up)


def test_equal_candidates_give_one_that_the_weights_fit():
    choices = choose(torch.full((1, 2, 3), 1 / 3))
    supernet = build_supernet(channels=2, cells=["successive"], steps=2, candidates=OPERATORS)
    assert set(inherited_weights(supernet, choices)) <= {
        name.replace(f"candidates.{index}.", "") for name in supernet.state_dict() for index in range(3)
    }


def model(candidates, rest=5.0):
    return CostModel("ms", rest, torch.tensor(candidates, dtype=torch.float64))


def test_a_budget_takes_the_cheaper_operator_where_that_costs_least_probability():
    probabilities = torch.tensor([[[0.6, 0.3, 0.1], [0.5, 0.4, 0.1]]])
    costs = model([[10.0, 4.0, 0.0]])
    assert choose_within(probabilities, costs, 25.0) == [[0, 0]]
    within = choose_within(probabilities, costs, 24.9)
    assert within == [[0, 1]]
    assert reasons(probabilities, OPERATORS, within) == [
        [
            "dense_k3_d1 0.60 before residual_k3_d1 0.30",
            "residual_k3_d1 0.40 instead of dense_k3_d1 0.50, for the budget",
        ]
    ]
    assert choose_within(probabilities, costs, 13.0) == [[1, 1]]
    assert choose_within(probabilities, costs, 5.0) == [[2, 2]]
    assert choose_within(probabilities, costs, 4.9) == [[2, 2]]  # the cheapest, where none is within


@given(st.integers(1, 2), st.integers(1, 2), st.integers(2, 5), st.integers(0, 10**6), st.floats(0, 1), st.booleans())
def test_no_network_within_the_budget_is_more_probable(cells, steps, count, seed, share, whole):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(cells, steps, count, generator=generator, dtype=torch.float64).pow(3)
    probabilities /= probabilities.sum(-1, keepdim=True)
    costs = torch.rand(cells, count, generator=generator, dtype=torch.float64) * 10
    costs = costs.round() if whole else costs  # many are equal
    costs = CostModel("ms", 2.0, costs)
    rows = [list(row) for row in itertools.product(range(count), repeat=steps)]
    networks = [list(network) for network in itertools.product(rows, repeat=cells)]
    totals = sorted(costs.predict(network) for network in networks)
    allowed = totals[int(share * (len(totals) - 1))]

    def score(network):
        return math.prod(
            probabilities[cell, step, network[cell][step]].item() for cell in range(cells) for step in range(steps)
        )

    found = choose_within(probabilities, costs, allowed)
    assert costs.predict(found) <= allowed
    best = max(score(network) for network in networks if costs.predict(network) <= allowed)
    assert score(found) == pytest.approx(best, rel=1e-9)


def test_many_edges_and_candidates_take_a_moment_not_an_enumeration():
    generator = torch.Generator().manual_seed(0)
    # Dearer is more probable everywhere, so that no candidate can be left out beforehand.
    costs = torch.rand(4, 30, generator=generator, dtype=torch.float64).sort(-1).values
    probabilities = (5 * costs.sqrt().unsqueeze(1).expand(4, 2, 30)).softmax(-1)
    costs = CostModel("ms", 1.0, costs)
    found = choose_within(probabilities, costs, 4.0)
    assert 3.9 < costs.predict(found) <= 4.0


def test_operators_whose_probability_has_become_zero_can_still_be_chosen():
    probabilities = torch.tensor([[[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]]])
    assert choose_within(probabilities, model([[9.0, 1.0, 1.0]]), 15.0) == [[0, 1]]
    assert choose_within(probabilities, model([[9.0, 1.0, 1.0]]), 7.0) == [[1, 1]]


def choose_by_time(allowed, times):
    """Choose an operator of one edge, the dearer the more probable, by a table of measured times.

    Returns its index, its time and the indices that were measured on the way.
    """
    probabilities = torch.arange(1.0, len(times) + 1).softmax(0).view(1, 1, -1)
    costs, taken = model([[2.0 * index for index in range(len(times))]], rest=10.0), []

    def measure(choices):
        taken.append(choices[0][0])
        return times[choices[0][0]]

    choices, time = choose_measured(probabilities, costs, allowed, measure)
    return choices[0][0], time, taken


def test_what_meets_the_budget_at_once_is_taken():
    assert choose_by_time(18.0, [10, 12, 14, 16, 18.0]) == (4, 18.0, [4])
    assert choose_by_time(15.0, [10, 12, 14, 16, 18]) == (2, 14, [2])


def test_the_prediction_is_tightened_until_the_measured_time_is_within():
    # All take a quarter more than predicted.
    assert choose_by_time(18.0, [12.5, 15, 17.5, 20, 22.5]) == (2, 17.5, [4, 2])
    # What is missed by a hair is not chosen again.
    assert choose_by_time(18.0, [10, 12, 14, 16, 18.01]) == (3, 16, [4, 3])


def test_after_a_few_tries_the_cheapest_is_taken():
    assert choose_by_time(22.0, [21.9, *[22.1] * 6]) == (0, 21.9, [6, 5, 4, 3, 0])


def test_of_networks_that_all_miss_the_budget_the_one_that_does_by_least_is_kept():
    assert choose_by_time(18.0, [20, 19, 21, 22, 23.0]) == (1, 19, [4, 1, 0])
    assert choose_by_time(9.0, [10, 12, 14, 16, 18.0]) == (0, 10, [0])
