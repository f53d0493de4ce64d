"""The parametric ReLU against its definition, in gradients of first and second order."""

import pytest
import torch
from torch import nn

from timfuse.operators.activation import PReLU


@pytest.mark.parametrize("slope", [0.25, 0.0, 1.0, 3.0, -0.5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradients_are_those_of_torch(normal, slope, layout):
    ours, theirs = PReLU(init=slope).double(), nn.PReLU(init=slope).double()
    x = normal(2, 3, 4, 5)
    x[0, 0, 0] = 0.0  # the kink itself
    x = x.contiguous(memory_format=layout).requires_grad_()
    outer = normal(2, 3, 4, 5, seed=1)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    gradients, expected = (torch.autograd.grad(module(x), (x, module.weight), outer) for module in (ours, theirs))
    torch.testing.assert_close(gradients, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("slope", [0.25, -0.5])
def test_gradients_of_first_and_second_order_are_slopes(normal, slope):
    module = PReLU(init=slope).double()
    x = normal(2, 3, 4, 5).requires_grad_()

    def activate(x, weight):
        return torch.func.functional_call(module, {"weight": weight}, (x,)) ** 2

    assert torch.autograd.gradcheck(activate, (x, module.weight))
    assert torch.autograd.gradgradcheck(activate, (x, module.weight))
