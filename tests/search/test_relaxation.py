import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.cost import Decisions
from timfuse.search.relaxation import entropy, gumbel_noise, noise_of, relax, relax_all, temperature_at

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [0.0, 0.1, -0.1]], dtype=torch.float64)


def logits_of(rows):
    return torch.tensor(rows, dtype=torch.float64)


rows = st.lists(st.floats(-20, 20), min_size=2, max_size=6).flatmap(
    lambda row: st.lists(st.lists(st.floats(-20, 20), min_size=len(row), max_size=len(row)), min_size=1, max_size=3)
)


def test_softmax_is_its_formula():
    expected = (LOGITS / 0.7).exp()
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(relax(LOGITS, 0.7), expected, rtol=0, atol=1e-15)


def test_softmax_has_the_gradient_of_softmax():
    assert torch.autograd.gradcheck(lambda logits: relax(logits, 0.4), LOGITS.clone().requires_grad_())


@given(rows, st.floats(0.05, 5), st.integers(0, 10**9))
def test_straight_through_is_exactly_one_hot_at_the_largest_noisy_logit(values, temperature, step):
    logits = logits_of(values).float()
    noise = gumbel_noise(logits, 0, step)
    sample = relax(logits, temperature, noise)
    assert torch.equal(sample.sort(-1).values[..., :-1], torch.zeros_like(sample[..., :-1]))
    assert torch.equal(sample.amax(-1), torch.ones(len(sample)))
    soft = ((logits + noise) / temperature).softmax(-1)
    assert torch.equal(soft.gather(-1, sample.argmax(-1, keepdim=True)).squeeze(-1), soft.amax(-1))


@given(rows, st.floats(0.2, 5), st.integers(0, 1000))
def test_straight_through_has_the_gradient_of_the_soft_sample(values, temperature, step):
    logits = logits_of(values).requires_grad_()
    noise = gumbel_noise(logits, 1, step)
    direction = torch.linspace(-1, 2, logits.numel(), dtype=torch.float64).view_as(logits)
    (gradient,) = torch.autograd.grad((relax(logits, temperature, noise) * direction).sum(), logits)
    p = ((logits + noise) / temperature).softmax(-1).detach()
    expected = p * (direction - (p * direction).sum(-1, keepdim=True)) / temperature
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


def test_noise_is_a_function_of_seed_and_step_alone():
    first = gumbel_noise(LOGITS, 3, 5)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert torch.equal(gumbel_noise(LOGITS, 3, 5), first)
    torch.set_rng_state(state)
    gumbel_noise(LOGITS, 3, 6)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(gumbel_noise(LOGITS, 3, 6), first)
    assert not torch.equal(gumbel_noise(LOGITS, 4, 5), first)
    assert gumbel_noise(LOGITS.float(), 3, 5).dtype is torch.float32


def test_noise_has_the_gumbel_distribution():
    noise = gumbel_noise(torch.empty(200_000, dtype=torch.float64), 0, 0)
    assert noise.mean().item() == pytest.approx(0.5772156649, abs=0.01)  # Euler's constant
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, rel=0.01)
    for point in (-1.0, 0.0, 1.0, 3.0):
        assert (noise <= point).double().mean().item() == pytest.approx(math.exp(-math.exp(-point)), abs=0.005)


def test_straight_through_samples_operators_as_often_as_softmax_says():
    logits = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64).expand(20_000, 3)
    frequency = relax(logits, 0.5, gumbel_noise(logits, 0, 0)).mean(0)
    torch.testing.assert_close(frequency, logits[0].softmax(-1), rtol=0, atol=0.01)


def test_temperature_goes_geometrically_from_start_to_end():
    values = [temperature_at(step, 11, 2.0, 0.1) for step in range(11)]
    assert values[0] == 2.0
    assert values[-1] == pytest.approx(0.1, rel=1e-12)
    ratios = [after / before for before, after in itertools.pairwise(values)]
    assert ratios == pytest.approx([ratios[0]] * 10, rel=1e-12)
    assert temperature_at(0, 1, 2.0, 0.1) == 2.0


@given(rows)
def test_entropy_lies_between_0_and_1(values):
    value = entropy(relax_all(Decisions(logits_of(values)), 1.0)).item()
    assert -1e-12 <= value <= 1 + 1e-12


@pytest.mark.parametrize("count", [2, 3, 10])
def test_entropy_at_its_ends_and_between(count):
    assert entropy(Decisions(torch.full((2, 3, count), 1 / count))).item() == pytest.approx(1, abs=1e-6)
    assert entropy(Decisions(torch.eye(count))).item() == 0
    half = torch.zeros(1, 1, count, dtype=torch.float64)
    half[..., :2] = 0.5
    fraction = math.log(2) / math.log(count)
    assert entropy(Decisions(half)).item() == pytest.approx(fraction, abs=1e-6)
    # Each decision counts once: here five uniform ones of widths.
    uniform = torch.full((5, 4), 0.25, dtype=torch.float64)
    assert entropy(Decisions(half, uniform)).item() == pytest.approx((fraction + 5) / 6, abs=1e-6)


def test_all_decisions_are_relaxed_alike_and_have_noise_of_their_own():
    logits = Decisions(LOGITS.view(1, 2, 3), LOGITS)
    noise = noise_of(logits, 3, 5)
    assert torch.equal(noise.operators, gumbel_noise(logits.operators, 3, 5))
    assert noise.widths.shape == LOGITS.shape
    assert not torch.equal(noise.widths, noise.operators[0])
    assert not torch.equal(noise_of(logits, 3, 6).widths, noise.widths)
    assert noise_of(Decisions(LOGITS), 3, 5).widths is None
    for of_noise in (None, noise):
        relaxed = relax_all(logits, 0.7, of_noise)
        for index in range(2):
            expected = relax(logits[index], 0.7, None if of_noise is None else of_noise[index])
            assert torch.equal(relaxed[index], expected)
    assert relax_all(Decisions(LOGITS), 0.7, noise_of(Decisions(LOGITS), 3, 5)).widths is None
