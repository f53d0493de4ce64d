import math
from itertools import pairwise

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from timfuse.bilevel import BilevelProblem, finite_difference


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), learning_rate=st.floats(1e-3, 1.0), step=st.floats(1e-2, 10.0))
def test_has_no_error_on_a_quadratic(random_quadratic, seed, learning_rate, step):
    quadratic = random_quadratic(seed)
    moved = quadratic.w - learning_rate * quadratic.f_w(quadratic.w)
    expected = quadratic.F_a(moved) + learning_rate * quadratic.B.T @ quadratic.F_w(moved)
    estimate = finite_difference(quadratic.problem(), None, None, learning_rate=learning_rate, step=step)
    torch.testing.assert_close(estimate.outer[0], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(estimate.inner[0], quadratic.f_w(quadratic.w), rtol=1e-12, atol=1e-12)


def test_error_falls_with_the_square_of_the_step():
    torch.manual_seed(0)
    module = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    a, x = torch.randn(4, dtype=torch.float64, requires_grad=True), torch.randn(7, 4, dtype=torch.float64)

    def inner_loss(module, batch):
        return (module(x).squeeze(1) * a.sum() + x @ a).exp().mean()

    def outer_loss(module, batch):
        return (module.weight**4).sum() + (module.weight @ a).sum()

    problem, lr = BilevelProblem(module, [a], outer_loss, inner_loss), 0.1
    # The truth of the same formula, with the mixed product by double backward at w.
    (f_w,) = torch.autograd.grad(inner_loss(module, None), module.weight, create_graph=True)
    moved = (module.weight - lr * f_w).detach().requires_grad_()
    at_moved = (moved**4).sum() + (moved @ a).sum()
    F_a, F_w = torch.autograd.grad(at_moved, (a, moved))
    truth = F_a - lr * torch.autograd.grad(f_w, a, F_w)[0]

    steps = [0.2, 0.1, 0.05, 0.025]
    errors = [
        (finite_difference(problem, None, None, learning_rate=lr, step=step).outer[0] - truth).norm().item()
        for step in steps
    ]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(abs(slope - 2) < 0.05 for slope in slopes), slopes


def test_does_not_divide_by_an_outer_gradient_of_zero(quadratic):
    problem = quadratic.problem()
    alone = BilevelProblem(
        problem.module,
        problem.outer_parameters,
        lambda module, batch: quadratic.a.square().sum() / 2,
        problem.inner_loss,
    )
    estimate = finite_difference(alone, None, None)
    assert torch.equal(estimate.outer[0], quadratic.a.detach())
    assert estimate.diagnostics["fallback"] == 0.0
