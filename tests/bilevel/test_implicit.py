import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from timfuse.bilevel import BilevelProblem, conjugate_gradient, neumann
from timfuse.runtime.errors import UserError

well_conditioned = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@well_conditioned
@given(seed=st.integers(0, 10_000), damping=st.sampled_from([0.0, 0.3]), optimum=st.booleans())
def test_conjugate_gradient_is_exact_in_as_many_steps_as_dimensions(random_quadratic, seed, damping, optimum):
    quadratic = random_quadratic(seed)
    if optimum:
        quadratic.at_optimum()
    estimate = conjugate_gradient(quadratic.problem(), None, None, iterations=6, damping=damping, tolerance=0.0)
    torch.testing.assert_close(estimate.outer[0], quadratic.implicit(damping), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(estimate.inner[0], quadratic.f_w(quadratic.w), rtol=1e-12, atol=1e-12)
    assert estimate.diagnostics["iterations"] == 6.0
    assert estimate.diagnostics["residual"] < 1e-10


def test_the_closed_form_is_the_derivative_of_the_outer_loss_along_the_inner_optimum(quadratic):
    def along(a):
        w = torch.linalg.solve(quadratic.A, quadratic.B @ a)
        return (w - quadratic.t).square().sum() / 2 + a @ quadratic.C @ a / 2 + a @ quadratic.D @ w

    truth = torch.autograd.functional.jacobian(along, quadratic.a.detach())
    torch.testing.assert_close(quadratic.at_optimum().implicit(), truth, rtol=1e-12, atol=1e-12)


def test_conjugate_gradient_stops_at_the_tolerance(quadratic):
    estimate = conjugate_gradient(quadratic.problem(), None, None, iterations=6, tolerance=1e-2)
    assert estimate.diagnostics["iterations"] < 6
    assert estimate.diagnostics["residual"] <= 1e-2


def test_conjugate_gradient_survives_negative_curvature(random_quadratic):
    quadratic = random_quadratic(0, lowest=-2.0, highest=-1.0)
    problem = quadratic.problem()
    estimate = conjugate_gradient(problem, None, None)
    assert estimate.diagnostics["negative_curvature"] == 1.0
    torch.testing.assert_close(estimate.outer[0], quadratic.F_a(quadratic.w), rtol=1e-12, atol=0)
    damped = conjugate_gradient(problem, None, None, damping=3.0, tolerance=0.0)
    assert damped.diagnostics["negative_curvature"] == 0.0
    torch.testing.assert_close(damped.outer[0], quadratic.implicit(3.0), rtol=1e-10, atol=1e-10)


@well_conditioned
@given(seed=st.integers(0, 10_000), terms=st.integers(0, 8), damping=st.sampled_from([0.0, 0.3]))
def test_neumann_equals_its_series(random_quadratic, seed, terms, damping):
    quadratic, lr = random_quadratic(seed), 0.4
    step = torch.eye(6, dtype=torch.float64) - lr * (quadratic.A + damping * torch.eye(6, dtype=torch.float64))
    F_w = quadratic.F_w(quadratic.w)
    powers = [torch.linalg.matrix_power(step, k) @ F_w for k in range(terms + 1)]
    expected = quadratic.F_a(quadratic.w) + quadratic.B.T @ (lr * sum(powers))
    estimate = neumann(quadratic.problem(), None, None, learning_rate=lr, terms=terms, damping=damping)
    torch.testing.assert_close(estimate.outer[0], expected, rtol=1e-12, atol=1e-12)
    assert estimate.diagnostics["residual"] == pytest.approx((powers[-1].norm() / F_w.norm()).item(), rel=1e-10)


def test_neumann_converges_with_the_spectral_radius(quadratic):
    lr, truth = 0.4, quadratic.implicit()
    radius = 1 - lr * 0.5  # the eigenvalues of A go from 0.5 to 2
    errors = [
        (neumann(quadratic.problem(), None, None, learning_rate=lr, terms=terms).outer[0] - truth).norm().item()
        for terms in (40, 41, 42)
    ]
    assert errors[1] / errors[0] == pytest.approx(radius, rel=1e-3)
    assert errors[2] / errors[1] == pytest.approx(radius, rel=1e-3)


def test_neumann_falls_back_to_the_direct_gradient_where_the_series_overflows(quadratic):
    estimate = neumann(quadratic.problem(), None, None, learning_rate=1e200, terms=10)
    assert estimate.diagnostics["fallback"] == 1.0
    assert estimate.diagnostics["ratio"] == 1.0
    torch.testing.assert_close(estimate.outer[0], quadratic.F_a(quadratic.w), rtol=1e-12, atol=0)


@pytest.mark.parametrize("estimator", [neumann, conjugate_gradient])
def test_an_inner_loss_linear_in_the_weights_has_no_curvature(estimator, quadratic):
    problem = quadratic.problem()
    linear = BilevelProblem(
        problem.module, problem.outer_parameters, problem.outer_loss, lambda module, batch: module.w.sum()
    )
    estimate = estimator(linear, None, None)
    torch.testing.assert_close(estimate.outer[0], quadratic.F_a(quadratic.w), rtol=1e-12, atol=0)


@pytest.mark.parametrize("estimator", [neumann, conjugate_gradient])
@pytest.mark.parametrize("compile_module", [lambda module: nn.Sequential(torch.compile(module)), None])
def test_refuses_compiled_modules(estimator, compile_module, quadratic):
    problem = quadratic.problem()
    module = nn.Sequential(problem.module)
    if compile_module is None:
        module.compile()
    else:
        module = compile_module(problem.module)
    compiled = BilevelProblem(module, problem.outer_parameters, problem.outer_loss, problem.inner_loss)
    with pytest.raises(UserError, match=r"as it was before torch\.compile"):
        estimator(compiled, None, None)
