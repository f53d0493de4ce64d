import doctest

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import timfuse.bilevel
from timfuse.bilevel import ESTIMATORS, BilevelProblem


def test_the_example_of_the_package_runs():
    results = doctest.testmod(timfuse.bilevel)
    assert results.attempted > 10
    assert results.failed == 0


@pytest.fixture
def ridge():
    """Ridge regression whose outer variable is the log weight decay, and its best value by brute force."""
    torch.manual_seed(1)
    x, truth = torch.randn(60, 8, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
    y = x @ truth + 3 * torch.randn(60, 1, dtype=torch.float64)
    training, validation = (x[:20], y[:20]), (x[20:], y[20:])

    def validation_loss(log_decay):
        gram = training[0].T @ training[0] / 20 + log_decay.exp() * torch.eye(8)
        w = torch.linalg.solve(gram, training[0].T @ training[1] / 20)
        return mse_loss(validation[0] @ w, validation[1]).item()

    grid = torch.linspace(-4, 3, 1401, dtype=torch.float64)
    best = grid[torch.tensor([validation_loss(log_decay) for log_decay in grid]).argmin()].item()

    model = nn.Linear(8, 1, bias=False, dtype=torch.float64)
    log_decay = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)

    def outer_loss(model, batch):
        return mse_loss(model(batch[0]), batch[1])

    def inner_loss(model, batch):
        return outer_loss(model, batch) + log_decay.exp() * model.weight.square().sum()

    return BilevelProblem(model, [log_decay], outer_loss, inner_loss), validation, training, best


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conjugate_gradient", {"iterations": 8}),
        ("neumann", {"learning_rate": 0.1, "terms": 15}),
        ("unrolled", {"steps": 15}),
    ],
)
def test_tunes_the_weight_decay_of_a_ridge_regression(name, options, ridge):
    problem, validation, training, best = ridge
    (log_decay,), w = problem.outer_parameters, problem.module.weight
    if name == "unrolled":
        options = options | {"optimizer": torch.optim.SGD(problem.module.parameters(), lr=0.1)}
    optimizer = torch.optim.Adam([log_decay, w], lr=0.05)
    for _ in range(400):
        estimate = ESTIMATORS[name](problem, validation, training, **options)
        log_decay.grad, w.grad = *estimate.outer, *estimate.inner
        optimizer.step()
    assert log_decay.item() == pytest.approx(best, abs=0.1)
