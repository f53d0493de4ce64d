"""Gradients are averaged over the processes that have them, and keep the layout that optimisers rely on."""

import torch
from torch import nn

from timfuse.runtime.averaged_gradients import average_gradients
from timfuse.runtime.distribution import ALONE, Ranks


class WithAnother(Ranks):
    """This process beside one whose gradients are those of `other`, and whose losses are 3."""

    def __init__(self, other):
        super().__init__(rank=0, count=2)
        object.__setattr__(self, "other", other)

    def average(self, tensors):
        flags = torch.tensor([float(each.grad is not None) for each in self.other])
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in self.other]
        theirs = [flags, *gradients, torch.tensor(3.0)]
        return tuple(((mine + their) / 2).contiguous() for mine, their in zip(tensors, theirs, strict=True))


def parameters_of(*gradients):
    shapes = (4, 3, 3, 3), (4,), (2, 2), (5,)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    parameters[0].data = parameters[0].data.contiguous(memory_format=torch.channels_last)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else torch.full_like(parameter, gradient)
    return parameters


def test_the_mean_is_over_all_and_what_none_has_stays_away():
    own, other = parameters_of(1.0, 2.0, None, None), parameters_of(3.0, None, 1.0, None)
    own[0].grad += torch.arange(108.0).view(4, 3, 3, 3)
    optimizer = torch.optim.SGD([{"params": own[:1]}, {"params": own[1:]}], lr=0.1)
    (loss,) = average_gradients(optimizer, [torch.tensor(1.0)], WithAnother(other))
    assert loss == 2
    torch.testing.assert_close(own[0].grad, 2 + torch.arange(108.0).view(4, 3, 3, 3) / 2)
    assert own[0].grad.stride() == own[0].stride() == (27, 1, 9, 3)
    assert own[1].grad.tolist() == [1.0] * 4
    assert own[2].grad.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert own[3].grad is None


def test_one_process_keeps_what_it_has():
    own = parameters_of(1.0, 2.0, None, None)
    gradients, loss = [each.grad for each in own], torch.tensor(1.0)
    assert average_gradients(torch.optim.SGD(own, lr=0.1), [loss], ALONE) == (loss,)
    assert all(each.grad is gradient for each, gradient in zip(own, gradients, strict=True))
