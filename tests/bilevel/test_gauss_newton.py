import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from timfuse.bilevel import BilevelProblem, gauss_newton


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), epsilon=st.sampled_from([0.0, 1e-8, 0.1]))
def test_equals_its_formula(random_quadratic, seed, epsilon):
    quadratic = random_quadratic(seed)
    F_w, f_w = quadratic.F_w(quadratic.w), quadratic.f_w(quadratic.w)
    c = F_w @ f_w / (f_w @ f_w + epsilon * F_w.norm() * f_w.norm())
    expected = quadratic.F_a(quadratic.w) - c * quadratic.f_a(quadratic.w)

    estimate = gauss_newton(quadratic.problem(), None, None, epsilon=epsilon, clip=math.inf)

    torch.testing.assert_close(estimate.outer[0], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(estimate.inner[0], f_w, rtol=1e-12, atol=1e-12)
    seen = estimate.diagnostics
    assert seen["coefficient"] == pytest.approx(c.item(), rel=1e-12)
    assert seen["cosine"] == pytest.approx((F_w @ f_w / F_w.norm() / f_w.norm()).item(), rel=1e-12)
    assert seen["ratio"] == pytest.approx((expected.norm() / quadratic.F_a(quadratic.w).norm()).item(), rel=1e-12)


def test_is_exact_where_the_hessian_is_the_rank_one_approximation():
    # One inner variable and f = (w - a)^2 / 2 around a residual of one: f_ww = f_w f_w' and f_aw = f_a f_w'.
    a = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    module = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(module.weight)
    problem = BilevelProblem(
        module,
        [a],
        lambda module, batch: 3 * module.weight.sum(),
        lambda module, batch: (module.weight - a).square().sum() / 2,
    )
    estimate = gauss_newton(problem, None, None, epsilon=0.0)
    assert estimate.outer[0].item() == pytest.approx(3.0, rel=1e-12)  # dF/da = F_w dw*/da = 3


def scaled(quadratic, scale):
    problem = quadratic.problem()
    return BilevelProblem(
        problem.module,
        problem.outer_parameters,
        lambda module, batch: scale * problem.outer_loss(module, batch),
        lambda module, batch: scale * problem.inner_loss(module, batch),
    )


def test_epsilon_is_relative(quadratic):
    reference = gauss_newton(quadratic.problem(), None, None, epsilon=0.01)
    for scale in (1e-9, 1e9):
        estimate = gauss_newton(scaled(quadratic, scale), None, None, epsilon=0.01)
        torch.testing.assert_close(estimate.outer[0] / scale, reference.outer[0], rtol=1e-10, atol=0)


def test_clip_bounds_the_coefficient_near_the_inner_optimum(quadratic):
    quadratic.at_optimum().w += 1e-7 * quadratic.F_w(quadratic.w)
    problem = quadratic.problem()
    assert abs(gauss_newton(problem, None, None, clip=math.inf).diagnostics["coefficient"]) > 1e4
    estimate = gauss_newton(problem, None, None, clip=2.0)
    c = estimate.diagnostics["coefficient"]
    assert abs(c) == 2.0
    expected = quadratic.F_a(quadratic.w) - c * quadratic.f_a(quadratic.w)
    torch.testing.assert_close(estimate.outer[0], expected, rtol=1e-12, atol=0)


def test_has_no_correction_where_the_inner_gradient_is_zero(quadratic):
    problem = quadratic.problem()
    flat = BilevelProblem(
        problem.module,
        problem.outer_parameters,
        problem.outer_loss,
        lambda module, batch: 0 * module.w.sum() + quadratic.a.sum(),
    )
    estimate = gauss_newton(flat, None, None)
    torch.testing.assert_close(estimate.outer[0], quadratic.F_a(quadratic.w), rtol=1e-12, atol=0)
    assert estimate.diagnostics["fallback"] == 0.0
    assert "cosine" not in estimate.diagnostics


def test_inner_products_of_half_precision_are_taken_in_single():
    # The square of 300 overflows float16, and the sum of 4096 small squares is lost in it.
    module, a = nn.Linear(4096, 1, bias=False, dtype=torch.float16), torch.ones(1, requires_grad=True)
    problem = BilevelProblem(
        module,
        [a],
        lambda module, batch: (300 * module.weight).float().sum() * a.sum(),
        lambda module, batch: (300 * module.weight).float().sum() * a.sum(),
    )
    estimate = gauss_newton(problem, None, None)
    assert estimate.inner[0].dtype == torch.float16
    assert estimate.diagnostics["coefficient"] == pytest.approx(1.0, rel=1e-5)
    assert estimate.diagnostics["ratio"] < 1e-5
