"""The learned weights of the sources: TIM's at the start, and every parameter of theirs can learn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.objectives import FusionLoss, saliency_weights
from timfuse.objectives.learned import SourceWeights


def pair(seed=0, shape=(2, 1, 9, 11), dtype=torch.float32):
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shaken(seed=0):
    """Weights that have learnt something."""
    torch.manual_seed(seed)
    weights = SourceWeights()
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.normal_()
    return weights


@given(seed=st.integers(0, 500), height=st.integers(3, 20), width=st.integers(3, 20))
def test_the_start_is_tim_s_to_the_bit(seed, height, width):
    torch.manual_seed(seed)
    first, second = pair(seed, (2, 1, height, width))
    assert torch.equal(SourceWeights()(first, second), saliency_weights(first, second))


def test_the_start_is_tim_s_for_flat_and_for_equal_images():
    flat, other = torch.full((1, 1, 8, 8), 0.3), pair()[0, :1, :, :8, :8]
    for first, second in ((flat, flat), (flat, other), (other, other)):
        assert torch.equal(SourceWeights()(first, second), saliency_weights(first, second))


@given(seed=st.integers(0, 500))
def test_they_sum_to_one_whatever_was_learnt(seed):
    first, second = pair(seed)
    weights = shaken(seed)(first, second)
    assert weights.shape == (2, 2, 1, 9, 11)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(2, 1, 9, 11))
    assert not torch.allclose(weights, saliency_weights(first, second), atol=1e-2)


def test_a_bias_for_one_source_moves_the_weights_as_a_softmax_does():
    first, second = pair(dtype=torch.float64)
    weights = SourceWeights().double()
    with torch.no_grad():
        weights.outer.bias.copy_(torch.tensor([0.0, 1.5]))
    ratio = saliency_weights(first, second)
    found = weights(first, second)
    torch.testing.assert_close(found[1] / found[0], ratio[1] / ratio[0] * torch.tensor(1.5).double().exp())


def test_each_image_of_a_batch_is_weighed_alone():
    first, second = pair(3, (3, 1, 9, 11))
    weights = shaken()
    together = weights(first, second)
    for place in range(3):
        torch.testing.assert_close(together[:, place], weights(first[[place]], second[[place]])[:, 0])


def test_the_gradient_reaches_every_parameter():
    first, second = pair()
    fused = pair(9)[0]
    weights = SourceWeights()
    optimizer = torch.optim.SGD(weights.parameters(), lr=1.0)
    for step in range(2):
        optimizer.zero_grad()
        FusionLoss()(fused, first, second, weights(first, second)).backward()
        for name, parameter in weights.named_parameters():
            # What stands behind a layer of zeros learns from the second step on.
            reached = parameter.grad.abs().max() > 0
            assert reached == (step == 1 or name.startswith("outer")), (step, name)
        optimizer.step()


@pytest.mark.rounding
def test_learning_draws_the_loss_to_the_source_that_is_wanted():
    first, second = pair(5)
    torch.manual_seed(0)
    weights = SourceWeights()
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        FusionLoss(1, 0, 0)(first, first, second, weights(first, second)).backward()
        optimizer.step()
    assert weights(first, second)[0].min() > 0.9


@pytest.mark.parametrize("name", ["inner.weight", "inner.bias", "outer.weight", "outer.bias"])
def test_derivatives(name):
    first, second = pair(dtype=torch.float64, shape=(1, 1, 6, 7))
    fused = pair(8, (1, 1, 6, 7), torch.float64)[0]
    weights = shaken().double()

    def loss(value):
        found = torch.func.functional_call(weights, {name: value}, (first, second))
        return FusionLoss(1, 0, 0.5)(fused, first, second, found)

    assert torch.autograd.gradcheck(loss, dict(weights.named_parameters())[name])
