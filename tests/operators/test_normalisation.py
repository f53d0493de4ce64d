"""Normalisation with a scale folded in is normalisation times the scale."""

import copy

import pytest
import torch

from timfuse.operators.normalisation import NORMS, build_norm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_a_scale_multiplies_the_output_and_nothing_else(randomise, normal, norm, training):
    folded = randomise(build_norm(norm, 6)).train(training)
    plain = copy.deepcopy(folded)
    x = normal(3, 6, 4, 5)
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    outputs = folded(x, scale), plain(x) * scale
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(output.pow(3).sum(), scale) for output in outputs]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 6, 7, 8, 48])
def test_group_normalisation_is_independent_of_the_batch(randomise, normal, channels):
    norm = randomise(build_norm("group", channels))
    x = normal(3, channels, 4, 5)
    torch.testing.assert_close(norm(x)[1:2], norm(x[1:2]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 1, 6, 5), (2, 16, 6, 5), (1, 16, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_normalisation_gives_gradients_of_its_parameters_alone(randomise, normal, layout, shape):
    samples, channels, height, width = shape
    norm = randomise(build_norm("group", channels))
    x = normal(*shape).contiguous(memory_format=layout)
    groups = x.reshape(samples, norm.num_groups, -1)
    centred = groups - groups.mean(-1, keepdim=True)
    deviation = (groups.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    normalised = (centred / deviation).reshape(shape)
    output = norm(x)
    expected = normalised * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    weight_gradient, bias_gradient = torch.autograd.grad(output, (norm.weight, norm.bias), torch.ones_like(x))
    torch.testing.assert_close(weight_gradient, normalised.sum((0, 2, 3)), rtol=1e-10, atol=1e-10)
    assert (bias_gradient == samples * height * width).all()


def test_an_unknown_norm_is_an_error():
    with pytest.raises(ValueError, match="batch, group, none"):
        build_norm("layer", 4)
