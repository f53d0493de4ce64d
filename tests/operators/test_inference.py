"""Networks rewritten for inference against themselves."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from timfuse.genotypes import ALL_OPERATORS, CellGenotype, Genotype, load_genotype, zoo_names
from timfuse.operators import build_network, for_inference
from timfuse.operators.inference import FewMaps

OPERATORS = [name for name in ALL_OPERATORS if "_k3" in name or name == "identity"]


def compare(network, images, tolerance):
    fast = for_inference(network)
    expected, outputs = network(*images), fast(*images)
    if isinstance(outputs, torch.Tensor):
        expected, outputs = (expected,), (outputs,)
    for output, image in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, image, rtol=tolerance, atol=tolerance * image.abs().max().item())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    return fast


@pytest.mark.parametrize("kind", ["successive", "multi_scale", "decomposition"])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("name", OPERATORS)
@torch.no_grad()
def test_every_operator_in_every_cell(randomise, normal, kind, norm, name):
    genotype = Genotype("test", "mri-ct", "fusion", 4, (CellGenotype(kind, (name, "dilated_k3_d1")),), norm=norm)
    compare(randomise(build_network(genotype)).eval(), normal(2, 2, 1, 12, 15), 1e-10)


@pytest.mark.parametrize("stem", ["full", "half"])
@pytest.mark.parametrize("head", ["direct", "envelope"])
@torch.no_grad()
def test_every_stem_and_head(randomise, normal, stem, head):
    cells = (CellGenotype("successive", ("residual_k3_d1", "dilated_k3_d2")),)
    genotype = Genotype("test", "infrared-visible", "fusion", 16, cells, stem=stem, head=head)
    network = randomise(build_network(genotype)).eval()
    fast = compare(network, normal(2, 1, 1, 33, 26), 1e-10)
    layers = [part for part in fast.head if isinstance(part, nn.Conv2d)]
    assert len(layers) == 2
    assert isinstance(layers[-1], FewMaps) == (layers[-1].out_channels <= 4)


@pytest.mark.parametrize("name", zoo_names())
@torch.no_grad()
def test_published_networks(randomise, normal, name):
    genotype = load_genotype(name)
    network = randomise(build_network(genotype)).eval()
    compare(network, normal(3 if genotype.network == "refine" else 2, 1, 1, 13, 18), 1e-10)


@torch.no_grad()
def test_single_precision_is_enough(normal):
    torch.manual_seed(0)
    compare(build_network(load_genotype("tim_light")).eval(), normal(2, 1, 1, 13, 18).float(), 1e-5)


@torch.no_grad()
def test_the_original_is_left_alone(randomise, normal):
    network = randomise(build_network(load_genotype("tim_light")))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    for_inference(network)(*normal(2, 1, 1, 8, 8))
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    for key, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0)


@pytest.mark.parametrize(("inputs", "outputs", "kernel"), [(5, 1, 3), (8, 4, 3), (3, 2, 5)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_few_maps_is_a_convolution(randomise, normal, inputs, outputs, kernel, bias):
    layer = randomise(FewMaps(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect", bias=bias))
    x = normal(2, inputs, 7, 9).to(memory_format=torch.channels_last)
    expected = F.conv2d(F.pad(x, 4 * (kernel // 2,), mode="reflect"), layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
