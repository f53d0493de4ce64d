"""Losses as users write them: with attention, detached, as vectors and numbers; and numbers of steps."""

import pytest
import torch
from torch import nn

from timfuse.bilevel import ESTIMATORS, META_GRADIENTS, Adaptation, BilevelProblem, layers_of, unrolled

BAD_LOSSES = {
    "detached": (lambda module, x: module(x).detach().mean(), "no graph"),
    "vector": (lambda module, x: module(x).mean(0), r"tensor of shape \(3,\)"),
    "number": (lambda module, x: module(x).mean().item(), "is float; return a scalar tensor"),
    "nothing": (lambda module, x: None, "is NoneType; return a scalar tensor"),
}


def encoder():
    """An encoder in evaluation mode, whose usual kernel for attention has no second derivative."""
    torch.manual_seed(0)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()


def test_every_estimator_differentiates_attention():
    module, a, x = encoder(), torch.zeros(2, requires_grad=True), torch.randn(2, 5, 8)

    def outer(module, batch):
        return module(batch).square().mean()

    problem = BilevelProblem(module, [a], outer, lambda module, batch: outer(module, batch) * a.exp().sum())
    found = {name: estimate(problem, x, x).outer[0] for name, estimate in ESTIMATORS.items()}
    assert all(value.isfinite().all() for value in found.values())
    # Both differentiate through one inner step.
    assert found["unrolled"].abs().min() > 0
    torch.testing.assert_close(found["finite_difference"], found["unrolled"], rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", META_GRADIENTS)
def test_every_meta_gradient_differentiates_attention(name):
    module, x = encoder(), torch.randn(2, 5, 8)
    layers = list(layers_of(module).values())[1 if name == "anil" else 0 :]
    adaptation = Adaptation(layers, torch.full((len(layers),), 0.01))
    loss = META_GRADIENTS[name](module, lambda module, batch: module(batch).square().mean(), [x], x, adaptation)
    assert max(gradient.abs().max() for gradient in loss.initial) > 0


@pytest.mark.parametrize("kind", BAD_LOSSES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_loss_without_a_gradient_is_refused_by_every_estimator(name, kind):
    (bad, words), a, x = BAD_LOSSES[kind], torch.ones(2, requires_grad=True), torch.randn(4, 3)

    def good(module, batch):
        return module(batch).mean() * a.sum()

    with pytest.raises(ValueError, match=f"the outer loss .*{words}"):
        ESTIMATORS[name](BilevelProblem(nn.Linear(3, 3), [a], bad, good), x, x)
    if name != "first_order":  # which does not use the inner loss
        with pytest.raises(ValueError, match=f"the inner loss .*{words}"):
            ESTIMATORS[name](BilevelProblem(nn.Linear(3, 3), [a], good, bad), x, x)


@pytest.mark.parametrize("kind", BAD_LOSSES)
@pytest.mark.parametrize("name", META_GRADIENTS)
def test_a_loss_without_a_gradient_is_refused_by_every_meta_gradient(name, kind):
    bad, words = BAD_LOSSES[kind]
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    layers = list(layers_of(module).values())[1 if name == "anil" else 0 :]
    adaptation = Adaptation(layers, torch.full((len(layers),), 0.01))
    with pytest.raises(ValueError, match=f"the loss .*{words}"):
        META_GRADIENTS[name](module, bad, [torch.ones(4, 3)], torch.ones(4, 3), adaptation)


def test_a_first_order_estimate_of_a_loss_without_outer_variables_is_zero():
    a, module = torch.ones(2, requires_grad=True), nn.Linear(3, 3)
    problem = BilevelProblem(module, [a], lambda module, x: module(x).mean(), lambda module, x: a.sum())
    assert ESTIMATORS["first_order"](problem, torch.ones(4, 3), None).outer[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("steps", [0, -1])
def test_unrolling_needs_a_step(quadratic, steps):
    with pytest.raises(ValueError, match=f"steps must be at least 1, not {steps}"):
        unrolled(quadratic.problem(), None, None, steps=steps)
