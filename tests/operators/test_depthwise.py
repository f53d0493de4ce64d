"""The depthwise convolution against torch's own, in value and in gradients of first and second order."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from timfuse.operators.depthwise import depthwise_convolution

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def plain(x, weight, dilation):
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=weight.shape[0])


def leaves(normal, samples, channels, inputs, kernel, height, width, layout=torch.contiguous_format):
    x = normal(samples, inputs * channels, height, width, seed=1).contiguous(memory_format=layout)
    weight = normal(channels, inputs, kernel, kernel, seed=2)
    return x.requires_grad_(), weight.requires_grad_()


@given(
    kernel=st.sampled_from([3, 5, 7]),
    dilation=st.sampled_from([1, 2]),
    inputs=st.sampled_from([1, 2, 3]),
    channels=st.integers(1, 5),
    samples=st.integers(1, 2),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 2),
)
def test_value_and_gradients_are_those_of_torch(
    normal, kernel, dilation, inputs, channels, samples, height, width, layouts
):
    x, weight = leaves(normal, samples, channels, inputs, kernel, height, width, layouts[0])
    ours, theirs = depthwise_convolution(x, weight, dilation), plain(x, weight, dilation)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    outer = normal(*theirs.shape, seed=3).contiguous(memory_format=layouts[1])
    gradients = torch.autograd.grad(ours, (x, weight), outer)
    torch.testing.assert_close(gradients, torch.autograd.grad(theirs, (x, weight), outer), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kernel", "dilation", "inputs"), list(itertools.product([3, 5, 7], [1, 2], [1, 2, 3])))
def test_gradients_of_first_and_second_order_are_slopes(normal, kernel, dilation, inputs, layout):
    x, weight = leaves(normal, 2, 2, inputs, kernel, 4, 5, layout)

    def convolve(x, weight):
        return depthwise_convolution(x, weight, dilation)

    assert torch.autograd.gradcheck(convolve, (x, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(convolve, (x, weight), fast_mode=True)


@pytest.mark.parametrize("kernel", [3, 5])
def test_one_argument_alone_may_need_a_gradient(normal, kernel):
    x, weight = leaves(normal, 1, 3, 1, kernel, 6, 7)
    for argument, arguments in ((x, (x, weight.detach())), (weight, (x.detach(), weight))):
        ours, theirs = (
            torch.autograd.grad(convolve(*arguments, 2).square().sum(), argument)
            for convolve in (depthwise_convolution, plain)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_view_with_strides_of_its_own(normal):
    x, weight = normal(2, 9, 14, 11)[:, ::3, 1::2, 2:9], normal(3, 1, 5, 5)
    torch.testing.assert_close(depthwise_convolution(x, weight, 2), plain(x, weight, 2), rtol=1e-10, atol=1e-10)
