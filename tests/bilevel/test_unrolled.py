import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timfuse.bilevel import unrolled


def descend(quadratic, lr, steps):
    """The weights after gradient descent and their closed-form derivative by a, (n, m)."""
    w, derivative = quadratic.w, torch.zeros_like(quadratic.B)
    for _ in range(steps):
        w = w - lr * quadratic.f_w(w)
        derivative = derivative - lr * (quadratic.A @ derivative - quadratic.B)
    return w, derivative


def estimate(quadratic, lr, steps):
    problem = quadratic.problem()
    optimizer = torch.optim.SGD(problem.module.parameters(), lr=lr)
    return unrolled(problem, None, None, optimizer=optimizer, steps=steps)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 6), lr=st.floats(1e-3, 1.0))
def test_equals_its_closed_form(random_quadratic, seed, steps, lr):
    quadratic = random_quadratic(seed)
    w, derivative = descend(quadratic, lr, steps)
    expected = quadratic.F_a(w) + derivative.T @ quadratic.F_w(w)
    result = estimate(quadratic, lr, steps)
    torch.testing.assert_close(result.outer[0], expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(result.inner[0], quadratic.f_w(quadratic.w), rtol=1e-12, atol=1e-12)
    assert not result.inner[0].requires_grad


def test_converges_to_the_truth_with_the_spectral_radius(quadratic):
    lr, truth = 0.4, quadratic.at_optimum().implicit()
    errors = [(estimate(quadratic, lr, steps).outer[0] - truth).norm().item() for steps in (40, 41)]
    assert errors[1] / errors[0] == pytest.approx(1 - lr * 0.5, rel=1e-3)


def test_converges_from_weights_off_the_optimum(quadratic):
    result = estimate(quadratic, 0.4, 200)
    truth = quadratic.at_optimum().implicit()
    torch.testing.assert_close(result.outer[0], truth, rtol=1e-10, atol=1e-10)
