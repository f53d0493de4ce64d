import pytest
import torch
from torch import nn

from timfuse.bilevel import BilevelProblem


def loss(module, batch):
    return module.weight.sum()


def test_inner_parameters_are_those_that_require_grad():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    problem = BilevelProblem(module, [torch.zeros(1, requires_grad=True)], loss, loss)
    assert list(map(id, problem.inner_parameters)) == list(map(id, module[1].parameters()))


@pytest.mark.parametrize(
    ("outer", "message"),
    [
        (lambda module: [], "needs an outer parameter"),
        (lambda module: [torch.zeros(1)], "outer parameter 0 is not a leaf"),
        (
            lambda module: [torch.zeros(1, requires_grad=True), torch.ones(1, requires_grad=True) * 2],
            "parameter 1 is",
        ),
        (lambda module: [module.weight], "parameter or buffer of the module"),
    ],
)
def test_refuses_outer_parameters_without_a_gradient_of_their_own(outer, message):
    module = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=message):
        BilevelProblem(module, outer(module), loss, loss)


def test_refuses_a_module_without_inner_variables():
    with pytest.raises(ValueError, match="a module parameter that requires grad"):
        BilevelProblem(nn.Linear(2, 1).requires_grad_(False), [torch.zeros(1, requires_grad=True)], loss, loss)
