import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.cost import Choices, CostModel, Decisions, SearchSpace
from timfuse.operators import build_network, build_supernet, inherited_weights
from timfuse.search.discretise import choose, choose_measured, choose_within, reasons

OPERATORS = ("dense_k3_d1", "residual_k3_d1", "identity")
TWO_CELLS = SearchSpace(4, ("successive",) * 2, 2, OPERATORS)


def test_the_most_probable_candidate_of_each_edge_is_kept():
    operators = torch.tensor([[[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], [[0.05, 0.15, 0.8], [0.3, 0.4, 0.3]]])
    probabilities = Decisions(operators)
    assert choose(probabilities) == Choices([[1, 0], [2, 1]])
    of_cells = {
        "cell 1": ["residual_k3_d1 0.50 before identity 0.30", "dense_k3_d1 0.60 before residual_k3_d1 0.30"],
        "cell 2": ["identity 0.80 before residual_k3_d1 0.15", "residual_k3_d1 0.40 before dense_k3_d1 0.30"],
    }
    assert reasons(probabilities, TWO_CELLS, choose(probabilities)) == of_cells

    space = replace(TWO_CELLS, channels=((0, 4, 8), (2, 6, 8)), levels=(0, 1))
    probabilities = Decisions(operators, torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4]]))
    assert choose(probabilities) == Choices([[1, 0], [2, 1]], (0, 1))
    of_widths = {"widths": ["0 0.50 before 4 0.30", "6 0.40 before 8 0.40"]}
    assert reasons(probabilities, space, choose(probabilities)) == of_cells | of_widths
    of_widths = {"widths": ["0 0.50 before 4 0.30", "2 0.20 instead of 6 0.40, for the budget"]}
    assert reasons(probabilities, space, Choices([[1, 0], [2, 1]], (0, 0))) == of_cells | of_widths


@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 9), st.integers(0, 10**6))
def test_the_reason_of_an_edge_names_its_choice_first(cells, steps, count, seed):
    names = tuple(f"operator{index}" for index in range(count))
    generator = torch.Generator().manual_seed(seed)
    probabilities = Decisions(torch.randint(1, 4, (cells, steps, count), generator=generator) / 10)  # many are equal
    choices = choose(probabilities)
    texts = reasons(probabilities, SearchSpace(4, ("successive",) * cells, steps, names), choices)
    for cell in range(cells):
        for step in range(steps):
            first, value, before, second, runner_up = texts[f"cell {cell + 1}"][step].split()
            assert (first, before) == (names[choices.operators[cell][step]], "before")
            assert first != second
            assert float(value) >= float(runner_up)


def test_equal_candidates_give_one_that_the_weights_fit():
    space = SearchSpace(2, ("successive",), 2, OPERATORS)
    choices = choose(Decisions(torch.full((1, 2, 3), 1 / 3)))
    assert choices == Choices([[0, 0]])
    supernet = build_supernet(channels=2, cells=["successive"], steps=2, candidates=OPERATORS)
    network = build_network(space.genotype(choices))
    network.load_state_dict(inherited_weights(supernet, choices.operators, network))


def model(candidates, rest=5.0):
    return CostModel("ms", rest, torch.tensor(candidates, dtype=torch.float64))


def test_a_budget_takes_the_cheaper_operator_where_that_costs_least_probability():
    probabilities = Decisions(torch.tensor([[[0.6, 0.3, 0.1], [0.5, 0.4, 0.1]]]))
    costs = model([[10.0, 4.0, 0.0]])
    assert choose_within(probabilities, costs, 25.0) == Choices([[0, 0]])
    within = choose_within(probabilities, costs, 24.9)
    assert within == Choices([[0, 1]])
    assert reasons(probabilities, replace(TWO_CELLS, cells=("successive",)), within) == {
        "cell 1": [
            "dense_k3_d1 0.60 before residual_k3_d1 0.30",
            "residual_k3_d1 0.40 instead of dense_k3_d1 0.50, for the budget",
        ]
    }
    assert choose_within(probabilities, costs, 13.0) == Choices([[1, 1]])
    assert choose_within(probabilities, costs, 5.0) == Choices([[2, 2]])
    assert choose_within(probabilities, costs, 4.9) == Choices([[2, 2]])  # the cheapest, where none is within


@given(st.integers(1, 2), st.integers(1, 2), st.integers(2, 5), st.integers(0, 10**6), st.floats(0, 1), st.booleans())
def test_no_network_within_the_budget_is_more_probable(cells, steps, count, seed, share, whole):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(cells, steps, count, generator=generator, dtype=torch.float64).pow(3)
    probabilities /= probabilities.sum(-1, keepdim=True)
    costs = torch.rand(cells, count, generator=generator, dtype=torch.float64) * 10
    costs = costs.round() if whole else costs  # many are equal
    costs = CostModel("ms", 2.0, costs)
    rows = [list(row) for row in itertools.product(range(count), repeat=steps)]
    networks = [Choices(list(network)) for network in itertools.product(rows, repeat=cells)]
    totals = sorted(costs.predict(network) for network in networks)
    allowed = totals[int(share * (len(totals) - 1))]

    def score(network):
        return math.prod(
            probabilities[cell, step, index].item()
            for cell, row in enumerate(network.operators)
            for step, index in enumerate(row)
        )

    found = choose_within(Decisions(probabilities), costs, allowed)
    assert costs.predict(found) <= allowed
    best = max(score(network) for network in networks if costs.predict(network) <= allowed)
    assert score(found) == pytest.approx(best, rel=1e-9)


@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=2),
    st.integers(1, 2),
    st.integers(2, 3),
    st.integers(0, 10**6),
    st.floats(-0.1, 1),
    st.booleans(),
)
def test_no_network_of_any_widths_within_the_budget_is_more_probable(levels, steps, options, seed, share, whole):
    """With two levels of which one may have no cell, and costs that grow with widths or not."""
    generator = torch.Generator().manual_seed(seed)
    count = 3

    def drawn(*shape):
        numbers = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return (10 * numbers).round() if whole else 10 * numbers

    operators = (drawn(len(levels), steps, count) / 3).softmax(-1)
    widths = (drawn(2, options) / 3).softmax(-1)
    costs = CostModel("ms", drawn(options, options), drawn(len(levels), options, count), tuple(levels))
    rows = [list(row) for row in itertools.product(range(count), repeat=steps)]
    networks = [
        Choices(list(network), combination)
        for network in itertools.product(rows, repeat=len(levels))
        for combination in itertools.product(range(options), repeat=2)
    ]
    totals = sorted(costs.predict(network) for network in networks)
    allowed = totals[int(share * (len(totals) - 1))] if share >= 0 else totals[0] - 1

    def score(network):
        of_operators = (
            operators[cell, step, index].item()
            for cell, row in enumerate(network.operators)
            for step, index in enumerate(row)
        )
        return math.prod(of_operators) * math.prod(
            widths[level, index].item() for level, index in enumerate(network.widths)
        )

    found = choose_within(Decisions(operators, widths), costs, allowed)
    assert found in networks
    if share < 0:
        assert costs.predict(found) == pytest.approx(totals[0], rel=1e-12)
    else:
        assert costs.predict(found) <= allowed
        best = max(score(network) for network in networks if costs.predict(network) <= allowed)
        assert score(found) == pytest.approx(best, rel=1e-9)


def test_a_width_whose_probability_has_become_zero_can_still_be_chosen():
    probabilities = Decisions(torch.tensor([[[0.9, 0.1]]]), torch.tensor([[0.0, 0.0, 1.0]]))
    rest = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    candidates = torch.tensor([[[2.0, 0.0]] * 3], dtype=torch.float64)
    costs = CostModel("ms", rest, candidates, levels=(0,))
    assert choose_within(probabilities, costs, 7.0) == Choices([[0]], (2,))
    assert choose_within(probabilities, costs, 5.0) == Choices([[1]], (2,))
    assert choose_within(probabilities, costs, 3.5) == Choices([[0]], (0,))
    assert choose_within(probabilities, costs, 0.5) == Choices([[1]], (0,))


def test_many_edges_and_candidates_take_a_moment_not_an_enumeration():
    generator = torch.Generator().manual_seed(0)
    # Dearer is more probable everywhere, so that no candidate can be left out beforehand.
    costs = torch.rand(4, 30, generator=generator, dtype=torch.float64).sort(-1).values
    probabilities = (5 * costs.sqrt().unsqueeze(1).expand(4, 2, 30)).softmax(-1)
    found = choose_within(Decisions(probabilities), of_operators := CostModel("ms", 1.0, costs), 4.0)
    assert 3.9 < of_operators.predict(found) <= 4.0
    # The same at four widths of each of two levels, of which the wider one is more probable.
    shares = torch.linspace(0.5, 1.0, 4, dtype=torch.float64)
    of_widths = CostModel("ms", shares[:, None] + shares, costs[:, None] * shares[:, None], levels=(0, 0, 1, 1))
    found = choose_within(Decisions(probabilities, (3 * shares).softmax(0).expand(2, 4)), of_widths, 4.0)
    assert 3.9 < of_widths.predict(found) <= 4.0


def test_operators_whose_probability_has_become_zero_can_still_be_chosen():
    probabilities = Decisions(torch.tensor([[[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]]]))
    assert choose_within(probabilities, model([[9.0, 1.0, 1.0]]), 15.0) == Choices([[0, 1]])
    assert choose_within(probabilities, model([[9.0, 1.0, 1.0]]), 7.0) == Choices([[1, 1]])


def choose_by_time(allowed, times):
    """Choose an operator of one edge, the dearer the more probable, by a table of measured times.

    Returns its index, its time and the indices that were measured on the way.
    """
    probabilities = Decisions(torch.arange(1.0, len(times) + 1).softmax(0).view(1, 1, -1))
    costs, taken = model([[2.0 * index for index in range(len(times))]], rest=10.0), []

    def measure(choices):
        ((index,),) = choices.operators
        taken.append(index)
        return times[index]

    choices, time = choose_measured(probabilities, costs, allowed, measure)
    return choices.operators[0][0], time, taken


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
