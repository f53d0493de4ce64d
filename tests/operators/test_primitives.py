"""Every operator of the search space, at any number of channels and any size."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from timfuse.genotypes import ALL_OPERATORS
from timfuse.operators import build_operator, primitives
from timfuse.operators.primitives import Depthwise, Inverted, Pointwise
from timfuse.runtime.errors import UserError

NORMS = ["batch", "group", "none"]


@given(
    name=st.sampled_from(ALL_OPERATORS),
    norm=st.sampled_from(NORMS),
    channels=st.integers(1, 12),
    samples=st.integers(1, 2),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@torch.no_grad()
def test_shape_is_kept_and_memory_layout_does_not_matter(
    randomise, normal, name, norm, channels, samples, height, width, dtype
):
    operator = randomise(build_operator(name, channels, norm)).to(dtype).eval()
    x = normal(samples, channels, height, width).to(dtype)
    output = operator(x)
    assert output.shape == x.shape
    assert output.dtype == dtype
    assert output.isfinite().all()
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    other = operator(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(output, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ALL_OPERATORS)
@torch.no_grad()
def test_images_of_a_batch_do_not_mix(randomise, normal, name):
    operator = randomise(build_operator(name, 4)).eval()
    x = normal(3, 4, 6, 5)
    torch.testing.assert_close(operator(x)[1:2], operator(x[1:2]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in ALL_OPERATORS if name != "identity"])
def test_a_scale_multiplies_the_branch(randomise, normal, name, training):
    operator = randomise(build_operator(name, 4)).train(training)
    plain = copy.deepcopy(operator)
    x = normal(2, 4, 6, 5)
    scale = torch.tensor(0.37, dtype=torch.float64)
    branch = plain(x) - x if plain.adds_input else plain(x)
    torch.testing.assert_close(operator(x, scale), scale * branch, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["dense_k5_d2", "residual_k3_d1", "dilated_k3_d2", "inverted_k3"])
@torch.no_grad()
def test_operators_that_add_their_input_are_the_identity_without_a_branch(normal, name):
    operator = build_operator(name, 4, "none").double()
    for parameter in operator.parameters():
        parameter.zero_()
    x = normal(1, 4, 6, 5)
    torch.testing.assert_close(operator(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL_OPERATORS[:-1])
def test_gradients_of_first_and_second_order_are_slopes(randomise, normal, name):
    operator = randomise(build_operator(name, 2, "group"))
    x = normal(1, 2, 3, 4).requires_grad_()
    names, weights = zip(*operator.named_parameters(), strict=True)

    def output(x, *weights):
        return torch.func.functional_call(operator, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(output, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("layer", [Pointwise(3, 5), Depthwise(5, 3, 2, inputs=3)])
def test_layers_are_the_convolutions_that_they_subclass(normal, layer):
    layer = layer.double()
    x = normal(2, layer.in_channels, 6, 7)
    torch.testing.assert_close(layer(x), torch.nn.Conv2d.forward(layer, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("norm", NORMS)
def test_the_inverted_residual_is_its_formula(randomise, normal, kernel, norm):
    operator = randomise(Inverted(4, kernel, norm)).eval()
    widen, first, depthwise, second, narrow = operator.convolutions
    x = normal(2, 4, 6, 7)
    y = F.prelu(F.conv2d(x, widen.weight), first.weight)
    assert y.shape == (2, 8, 6, 7)
    y = F.prelu(F.conv2d(y, depthwise.weight, padding=kernel // 2, groups=8), second.weight)
    y = F.conv2d(y, narrow.weight)
    torch.testing.assert_close(operator(x), x + operator.norm(y), rtol=1e-12, atol=1e-12)
    assert operator.norm(y).equal(y) == (norm == "none")


def test_non_local_attention_in_strips_is_the_whole_attention(randomise, normal, monkeypatch):
    operator = randomise(build_operator("non_local_k3", 4))
    x = normal(2, 4, 6, 5)
    whole = operator(x)
    monkeypatch.setattr(primitives, "ATTENTION_ELEMENTS", 2 * 30 * 7)  # strips of 7 of the 30 pixels
    torch.testing.assert_close(operator(x), whole, rtol=1e-12, atol=1e-12)


def test_a_fresh_non_local_block_passes_its_input_on(normal):
    operator = build_operator("non_local_k3", 4).double()
    x = normal(1, 4, 6, 5)
    entry = operator.entry(x)
    expected = operator.activation(operator.exit(operator.activation(entry) + entry))
    torch.testing.assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)


def test_unknown_operators_are_refused():
    with pytest.raises(UserError, match="unknown operator 'residual_k4_d1'"):
        build_operator("residual_k4_d1", 4)
