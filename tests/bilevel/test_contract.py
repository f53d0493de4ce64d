"""What every estimator promises: it leaves no trace, spends the passes it should and never returns NaN."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timfuse.bilevel import ESTIMATORS, BilevelProblem, NonFiniteError

every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())
with_inner_loss = pytest.mark.parametrize(
    "estimator", [value for name, value in ESTIMATORS.items() if name != "first_order"]
)


def traces(problem):
    """The bytes of everything that an estimator must not change, and the identities of the tensors."""
    module = problem.module
    tensors = [*module.parameters(), *module.buffers(), *problem.outer_parameters]
    tensors += [tensor.grad for tensor in tensors if tensor.grad is not None]
    return (
        [tensor.detach().numpy().tobytes() for tensor in (*tensors, torch.get_rng_state())],
        [id(tensor) for tensor in tensors],
        [part.training for part in module.modules()],
    )


def first_inner(problem, batches):
    return ESTIMATORS["gauss_newton"](problem, *batches).inner


@every_estimator
@pytest.mark.parametrize("training", [True, False])
def test_leaves_no_trace(estimator, training, noisy):
    problem, *batches = noisy
    problem.module.train(training)
    problem.module.first.bias.grad = torch.full((8,), torch.nan)
    before = traces(problem)
    estimator(problem, *batches)
    assert traces(problem) == before


@every_estimator
def test_leaves_no_trace_where_a_loss_raises(estimator, noisy, counts):
    problem, *batches = noisy
    before = traces(problem)
    estimator(problem, *batches)
    passes = counts["forward"]
    for fatal in range(1, passes + 1):
        calls = []

        def loss(module, batch, fatal=fatal, calls=calls):
            value = problem.inner_loss(module, batch)
            calls.append(value)
            if len(calls) == fatal:
                raise KeyboardInterrupt
            return value

        with pytest.raises(KeyboardInterrupt):
            estimator(BilevelProblem(problem.module, problem.outer_parameters, loss, loss), *batches)
        assert traces(problem) == before


@every_estimator
def test_is_indifferent_to_gradients_left_behind_and_repeats_itself(estimator, noisy):
    problem, *batches = noisy
    clean = estimator(problem, *batches)
    for tensor in (*problem.module.parameters(), *problem.outer_parameters):
        tensor.grad = torch.full_like(tensor, 1e6)
    dirty = estimator(problem, *batches)
    assert all(map(torch.equal, clean.outer, dirty.outer))
    assert clean.diagnostics == dirty.diagnostics


@every_estimator
def test_works_where_gradients_are_disabled(estimator, noisy):
    problem, *batches = noisy
    expected = estimator(problem, *batches)
    with torch.no_grad():
        actual = estimator(problem, *batches)
    assert all(map(torch.equal, actual.outer, expected.outer))


@every_estimator
def test_gives_a_plain_gradient_for_every_variable(estimator, noisy):
    problem, *batches = noisy
    estimate = estimator(problem, *batches)
    assert [gradient.shape for gradient in estimate.outer] == [tensor.shape for tensor in problem.outer_parameters]
    assert estimate.outer[0].any()
    assert not estimate.outer[1].any()  # no loss depends on the second outer variable
    if estimate.inner is not None:
        assert [gradient.shape for gradient in estimate.inner] == [w.shape for w in problem.inner_parameters]
    assert not any(gradient.requires_grad for gradient in (*estimate.outer, *(estimate.inner or ())))
    assert all(type(value) is float for value in estimate.diagnostics.values())


@with_inner_loss
def test_inner_is_the_raw_gradient_of_the_inner_loss(estimator, noisy):
    problem, *batches = noisy
    estimate = estimator(problem, *batches)
    loss = problem.inner_loss(problem.module, batches[1])  # the same noise: the estimator left the generator as it was
    gradients = torch.autograd.grad(loss, problem.inner_parameters, materialize_grads=True)
    torch.testing.assert_close(estimate.inner, gradients)
    assert estimate.diagnostics["inner_loss"] == pytest.approx(loss.item())


@every_estimator
def test_every_pass_sees_the_same_noise_and_the_same_buffers(estimator, noisy):
    problem, *batches = noisy
    seen = []

    def loss(module, batch):
        seen.append((torch.get_rng_state(), copy.deepcopy(dict(problem.module.named_buffers()))))
        return problem.inner_loss(module, batch)

    estimator(BilevelProblem(problem.module, problem.outer_parameters, loss, loss), *batches)
    for state, buffers in seen[1:]:
        assert torch.equal(state, seen[0][0])
        torch.testing.assert_close(buffers, seen[0][1], rtol=0, atol=0)


# A Hessian or mixed product goes through the graph of the forward pass once more; so does that of a step.
@pytest.mark.parametrize(
    ("name", "options", "forward", "backward"),
    [
        ("first_order", {}, 1, 1),
        ("gauss_newton", {}, 2, 2),
        ("finite_difference", {}, 4, 4),
        ("unrolled", {"steps": 3}, 3 + 1, (3 + 1) + 3),
        ("neumann", {"terms": 5}, 2, 2 + 5 + 1),
        ("conjugate_gradient", {"iterations": 5, "damping": 10.0, "tolerance": 0.0}, 2, 2 + 5 + 1),
    ],
)
def test_spends_the_passes_of_its_formula(name, options, forward, backward, noisy, counts):
    problem, *batches = noisy
    ESTIMATORS[name](problem, *batches, **options)
    assert counts == {"forward": forward, "backward": backward}


@every_estimator
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_refuses_an_outer_loss_that_is_not_finite(estimator, value, noisy):
    problem, *batches = noisy
    broken = BilevelProblem(
        problem.module,
        problem.outer_parameters,
        lambda module, batch: problem.outer_loss(module, batch) + value,
        problem.inner_loss,
    )
    with pytest.raises(NonFiniteError, match="outer loss F is not finite"):
        estimator(broken, *batches)


@with_inner_loss
def test_refuses_an_inner_loss_that_is_not_finite(estimator, noisy):
    problem, *batches = noisy
    broken = BilevelProblem(
        problem.module,
        problem.outer_parameters,
        problem.outer_loss,
        lambda module, batch: problem.inner_loss(module, batch) + torch.inf,
    )
    with pytest.raises(NonFiniteError, match="inner loss f is not finite"):
        estimator(broken, *batches)


@with_inner_loss
def test_names_the_gradient_that_is_not_finite(estimator, noisy):
    problem, *batches = noisy

    def kinked(module, batch):  # the square root has an infinite slope at zero
        return problem.outer_loss(module, batch) + (module.unused - module.unused.detach()).sqrt().sum()

    broken = BilevelProblem(problem.module, problem.outer_parameters, kinked, problem.inner_loss)
    with pytest.raises(NonFiniteError, match="outer gradient F_w is not finite"):
        estimator(broken, *batches)


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
@pytest.mark.parametrize("name", ["finite_difference", "unrolled"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_is_the_slope_after_the_next_step_of_adam(random_quadratic, amid_adam, name, max_norm, seed):
    problem, optimizer, truth = amid_adam(random_quadratic(seed), max_norm)
    before = copy.deepcopy(optimizer.state_dict())
    estimate = ESTIMATORS[name](problem, None, None, optimizer=optimizer, max_norm=max_norm)
    torch.testing.assert_close(estimate.outer[0], truth, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, momentum=0.9), torch.optim.Adam])
def test_finite_differences_agree_with_reverse_mode(noisy, make):
    problem, *batches = noisy
    for tensor in (*problem.module.parameters(), *problem.module.buffers(), *problem.outer_parameters):
        tensor.data = tensor.data.double()
    batches = [(x.double(), y.double()) for x, y in batches]
    optimizer = make(problem.module.parameters(), lr=0.01)
    for _ in range(3):
        for weight, gradient in zip(problem.inner_parameters, first_inner(problem, batches), strict=True):
            weight.grad = gradient
        optimizer.step()
    estimates = [
        ESTIMATORS[name](problem, *batches, optimizer=optimizer, max_norm=0.5, **options)
        for name, options in (("unrolled", {}), ("finite_difference", {"step": 1e-4}))
    ]
    torch.testing.assert_close(estimates[0].outer, estimates[1].outer, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(estimates[0].inner, estimates[1].inner, rtol=1e-12, atol=0)
    direct = ESTIMATORS["first_order"](problem, *batches)
    assert (estimates[0].outer[0] - direct.outer[0]).norm() > 1e-2 * direct.outer[0].norm()


@pytest.mark.parametrize("name", ["first_order", "gauss_newton"])
def test_works_with_a_compiled_module(name, noisy):
    problem, *batches = noisy
    problem.module.eval()
    expected = ESTIMATORS[name](problem, *batches)
    compiled = torch.compile(problem.module, backend="aot_eager")
    actual = ESTIMATORS[name](
        BilevelProblem(compiled, problem.outer_parameters, problem.outer_loss, problem.inner_loss), *batches
    )
    torch.testing.assert_close(actual.outer, expected.outer)
