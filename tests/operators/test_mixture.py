"""A mixture against the plain weighted sum of its candidates, in value, gradients and side effects."""

import copy

import pytest
import torch

from timfuse.genotypes import ALL_OPERATORS
from timfuse.operators import build_operator
from timfuse.operators.mixture import MixedOperator, first_derivatives_only
from timfuse.operators.primitives import added

NORMS = ["batch", "group", "none"]
COUNT = len(ALL_OPERATORS)
SPREAD = torch.linspace(-2, 1, COUNT, dtype=torch.float64).softmax(0)
ONE_HOT = torch.eye(COUNT, dtype=torch.float64)
PROBABILITIES = [SPREAD, ONE_HOT[0], ONE_HOT[ALL_OPERATORS.index("residual_k3_d1")], ONE_HOT[-1]]


@pytest.fixture(params=NORMS)
def mixture(request, randomise):
    return randomise(MixedOperator([build_operator(name, 4, request.param) for name in ALL_OPERATORS]))


def plain_sum(candidates, x, probabilities):
    return sum(p * candidate(x) for p, candidate in zip(probabilities, candidates, strict=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("probabilities", PROBABILITIES)
def test_value_and_gradients_are_those_of_the_weighted_sum(mixture, normal, probabilities, training):
    mixture.train(training)
    candidates = copy.deepcopy(mixture.candidates)
    x = normal(2, 4, 6, 5).requires_grad_()
    p = probabilities.clone().requires_grad_()
    outer = normal(2, 4, 6, 5, seed=1)
    ours, plain = mixture(x, p), plain_sum(candidates, x, p)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(ours, (x, p, *mixture.parameters()), outer)
    expected = torch.autograd.grad(plain, (x, p, *candidates.parameters()), outer)
    torch.testing.assert_close(gradients, expected, rtol=1e-10, atol=1e-10)
    for key, tensor in candidates.state_dict().items():  # the running statistics among them
        torch.testing.assert_close(mixture.candidates.state_dict()[key], tensor, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slope_of_a_probability_is_what_its_candidate_would_add(mixture, normal, dtype):
    mixture.to(dtype).eval()
    x, outer = (normal(2, 4, 6, 5, seed=seed).to(dtype) for seed in (0, 1))
    slopes = torch.stack([(outer * candidate(x)).sum() for candidate in mixture.candidates])
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    for probabilities in PROBABILITIES:
        p = probabilities.to(dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(mixture(x, p), p, outer)
        torch.testing.assert_close(gradient, slopes, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("probabilities", PROBABILITIES)
def test_first_derivatives_alone_are_the_same(mixture, normal, probabilities):
    x, outer = normal(2, 4, 6, 5).requires_grad_(), normal(2, 4, 6, 5, seed=1)
    other = copy.deepcopy(mixture)
    p = probabilities.clone().requires_grad_()
    both = other(x, p)
    expected = torch.autograd.grad(both, (x, p, *other.parameters()), outer)
    with first_derivatives_only():
        alone = mixture(x, p)
    gradients = torch.autograd.grad(alone, (x, p, *mixture.parameters()), outer, materialize_grads=True)
    torch.testing.assert_close((alone, gradients), (both, expected), rtol=1e-11, atol=1e-11)


def test_without_a_derivative_by_the_probabilities_only_what_has_one_is_computed(mixture, normal):
    x, chosen = normal(2, 4, 6, 5), ALL_OPERATORS.index("dense_k3_d1")
    calls = []
    for index, candidate in enumerate(mixture.candidates):
        candidate.register_forward_hook(lambda *_, index=index: calls.append(index))
    with torch.no_grad():
        expected = plain_sum(mixture.candidates, x, ONE_HOT[chosen])
    calls.clear()
    torch.testing.assert_close(mixture(x, ONE_HOT[chosen]), expected, rtol=1e-12, atol=1e-12)
    assert calls == [chosen]


@pytest.mark.parametrize("probabilities", PROBABILITIES)
def test_second_order_gradients_are_those_of_the_weighted_sum(mixture, normal, probabilities):
    x, p = normal(2, 4, 6, 5), probabilities.clone().requires_grad_()
    direction = normal(COUNT, seed=2)

    def mixed_derivatives(output, candidates):
        (slopes,) = torch.autograd.grad(output.square().mean(), p, create_graph=True)
        return torch.autograd.grad(slopes @ direction, (p, *candidates.parameters()))

    candidates = copy.deepcopy(mixture.candidates)
    ours = mixed_derivatives(mixture(x, p), mixture.candidates)
    plain = mixed_derivatives(plain_sum(candidates, x, p), candidates)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("index", range(COUNT))
def test_a_mixture_of_one_block_is_the_block(mixture, normal, index):
    mixture.eval()
    x = normal(2, 4, 6, 5)
    block = added(mixture.candidates[index], x)
    torch.testing.assert_close(mixture.added(x, ONE_HOT[index]), block, rtol=1e-12, atol=1e-12)


def test_a_mixture_of_blocks_adds_their_branches_to_the_input(mixture, normal):
    """So it is the weighted sum of the blocks, and its slopes are what each block would add."""
    mixture.eval()
    candidates = copy.deepcopy(mixture.candidates)
    x, outer, p = normal(2, 4, 6, 5), normal(2, 4, 6, 5, seed=1), SPREAD.clone().requires_grad_()
    expected = x + sum(share * (added(candidate, x) - x) for share, candidate in zip(p, candidates, strict=True))
    ours = mixture.added(x, p)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(ours, (p, *mixture.parameters()), outer)
    torch.testing.assert_close(
        gradients, torch.autograd.grad(expected, (p, *candidates.parameters()), outer), rtol=1e-10, atol=1e-10
    )


def test_there_is_one_probability_per_candidate(normal):
    mixture = MixedOperator([build_operator("identity", 4)] * 2).double()
    x = normal(1, 4, 3, 3)
    torch.testing.assert_close(mixture(x, torch.tensor([0.5, 0.25], dtype=x.dtype)), 0.75 * x)
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        mixture(x, torch.full((3,), 1 / 3, dtype=x.dtype))
