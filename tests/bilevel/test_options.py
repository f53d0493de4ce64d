"""Settings of the estimators by name: which each has, what they may be, and that each can be called with them."""

import copy
import inspect

import pytest
import torch

from timfuse.bilevel import ESTIMATORS, BilevelProblem
from timfuse.bilevel.options import check_estimator_options, complete_options
from timfuse.runtime.errors import UserError

SETTINGS = {
    "first_order": {},
    "gauss_newton": {"epsilon": 1e-6, "clip": 5},
    "finite_difference": {"learning_rate": 0.1, "step": 0.02},
    "unrolled": {"steps": 3},
    "neumann": {"learning_rate": 0.1, "terms": 4, "damping": 0.5},
    "conjugate_gradient": {"iterations": 4, "damping": 0, "tolerance": 1e-3},
}


def test_every_estimator_is_tested():
    assert SETTINGS.keys() == ESTIMATORS.keys()


@pytest.mark.parametrize("estimator", SETTINGS)
def test_its_own_settings_and_none_are_right(estimator):
    check_estimator_options(estimator, {}, "guidance.options")
    check_estimator_options(estimator, SETTINGS[estimator], "guidance.options")
    for name, value in SETTINGS[estimator].items():
        check_estimator_options(estimator, {name: 0}, "guidance.options")
        check_estimator_options(estimator, {name: value}, "guidance.options")


@pytest.mark.parametrize("estimator", SETTINGS)
def test_settings_of_others_are_refused_with_those_that_there_are(estimator):
    others = {name for each in SETTINGS.values() for name in each}
    others |= {"optimizer", "max_norm", "problem", "inner_batch", "x"}
    known = ", ".join(SETTINGS[estimator]) or "none"
    for name in others - SETTINGS[estimator].keys():
        with pytest.raises(UserError) as error:
            check_estimator_options(estimator, {**SETTINGS[estimator], name: 1}, "search.options")
        assert str(error.value) == f"search.options.{name}: {estimator} has no such setting; it has {known}"


@pytest.mark.parametrize(
    ("estimator", "name", "value", "kind"),
    [
        ("unrolled", "steps", 1.0, "whole number"),
        ("unrolled", "steps", 1.5, "whole number"),
        ("unrolled", "steps", True, "whole number"),
        ("unrolled", "steps", -1, "whole number"),
        ("neumann", "terms", float("inf"), "whole number"),
        ("neumann", "terms", float("nan"), "whole number"),
        ("neumann", "damping", -0.1, "number"),
        ("neumann", "damping", -1, "number"),
        ("gauss_newton", "clip", float("nan"), "number"),
        ("gauss_newton", "clip", float("-inf"), "number"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(estimator, name, value, kind):
    with pytest.raises(UserError) as error:
        check_estimator_options(estimator, {name: value}, "options")
    assert str(error.value) == f"options.{name} = {value} must be a {kind} from 0 on"


def test_no_limit_is_a_limit():
    check_estimator_options("gauss_newton", {"clip": float("inf")}, "options")


def adam(lr):
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))], lr=lr)


def test_the_inner_step_goes_where_it_is_modelled():
    optimizer = adam(0.25)
    for estimator in SETTINGS:
        completed = complete_options(estimator, {}, optimizer, 5.0)
        if estimator in ("finite_difference", "unrolled"):
            assert completed == {"optimizer": optimizer, "max_norm": 5.0}
        elif estimator == "neumann":
            assert completed == {"learning_rate": 0.25}
        else:
            assert completed == {}


@pytest.mark.parametrize("estimator", ["finite_difference", "neumann"])
def test_a_learning_rate_of_the_user_takes_precedence(estimator):
    assert complete_options(estimator, {"learning_rate": 0.5}, adam(0.25), 5.0) == {"learning_rate": 0.5}


@pytest.mark.parametrize("estimator", SETTINGS)
def test_what_the_user_set_is_kept_and_stays_as_it_is(estimator):
    options = copy.deepcopy(SETTINGS[estimator])
    completed = complete_options(estimator, options, adam(0.25))
    assert options == SETTINGS[estimator]
    assert completed is not options
    assert completed.items() >= SETTINGS[estimator].items()
    inspect.signature(ESTIMATORS[estimator]).bind(None, None, None, **completed)


@pytest.mark.parametrize("estimator", SETTINGS)
@pytest.mark.parametrize("given", [True, False])
def test_each_estimator_runs_on_a_small_problem(estimator, given):
    torch.manual_seed(0)
    model, outer = torch.nn.Linear(2, 1).double(), torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    batch = torch.randn(4, 2).double()
    problem = BilevelProblem(
        model,
        [outer],
        lambda model, batch: model(batch).square().mean(),
        lambda model, batch: (model(batch) - outer).square().mean() + model.weight.square().sum(),
    )
    options = SETTINGS[estimator] if given else {}
    check_estimator_options(estimator, options, "options")
    completed = complete_options(estimator, options, torch.optim.SGD(problem.inner_parameters, lr=0.01))
    (gradient,) = ESTIMATORS[estimator](problem, batch, batch, **completed).outer
    if estimator == "first_order":
        assert not gradient.any()  # the outer loss sees the outer variable through the weights only
    else:
        assert gradient.isfinite().all()
        assert gradient.abs().item() > 1e-6


def test_an_unrolled_step_goes_as_far_as_the_learning_rate_says():
    # w <- w - lr (w - a), F = w^2 / 2: dF/da = lr w'.
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.ones_(model.weight)
    outer = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    problem = BilevelProblem(
        model,
        [outer],
        lambda model, _: model.weight.square().sum() / 2,
        lambda model, _: (model.weight - outer).square().sum() / 2,
    )
    completed = complete_options("unrolled", {}, torch.optim.SGD(problem.inner_parameters, lr=0.1))
    (gradient,) = ESTIMATORS["unrolled"](problem, None, None, **completed).outer
    assert gradient.item() == pytest.approx(0.1 * 1.2)
    assert model.weight.item() == 1
