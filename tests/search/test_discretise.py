import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.operators import build_supernet, inherited_weights
from timfuse.search.discretise import choose, reasons

OPERATORS = ["dense_k3_d1", "residual_k3_d1", "identity"]


def test_the_most_probable_candidate_of_each_edge_is_kept():
    probabilities = torch.tensor([[[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], [[0.05, 0.15, 0.8], [0.3, 0.4, 0.3]]])
    assert choose(probabilities) == [[1, 0], [2, 1]]
    assert reasons(probabilities, OPERATORS) == [
        ["residual_k3_d1 0.50 before identity 0.30", "dense_k3_d1 0.60 before residual_k3_d1 0.30"],
        ["identity 0.80 before residual_k3_d1 0.15", "residual_k3_d1 0.40 before dense_k3_d1 0.30"],
    ]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 9), st.integers(0, 10**6))
def test_the_reason_of_an_edge_names_its_choice_first(cells, steps, count, seed):
    names = [f"operator{index}" for index in range(count)]
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randint(1, 4, (cells, steps, count), generator=generator) / 10  # many are equal
    choices, texts = choose(probabilities), reasons(probabilities, names)
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
