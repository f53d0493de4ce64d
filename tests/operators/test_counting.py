"""Costs against numbers worked out by hand."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from timfuse.genotypes import CellGenotype, Genotype, load_genotype, zoo_names
from timfuse.operators import build_network, count_flops, count_memory, count_parameters
from timfuse.operators.counting import flops_of_modules

from ..random_genotypes import genotypes


class Stacked(nn.Module):
    """One convolution on all images stacked as channels."""

    def __init__(self, convolution):
        super().__init__()
        self.convolution = convolution

    def forward(self, *images):
        return self.convolution(torch.cat(images, 1))


@given(
    kernel=st.sampled_from([1, 3, 5, 7]),
    groups=st.integers(1, 3),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
@settings(max_examples=20)
def test_a_convolution(kernel, groups, inputs, outputs, height, width):
    convolution = nn.Conv2d(groups * inputs, groups * outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    network = Stacked(convolution)
    flops = 2 * kernel**2 * inputs * (groups * outputs) * height * width
    assert count_flops(network, height, width, groups * inputs) == flops
    assert count_parameters(network) == kernel**2 * inputs * groups * outputs


def plain(channels, operators, stem="full"):
    cells = (CellGenotype("successive", operators),)
    return build_network(Genotype("plain", "mri-ct", "fusion", channels, cells, stem=stem))


OPERATOR_MULTIPLICATIONS = {
    "identity": lambda C: 0,
    "dense_k5_d2": lambda C: 25 * (1 + 2 + 3) * C,
    "residual_k3_d1": lambda C: 9 * C + 9 * C + C * C,
    "separable_k7": lambda C: 2 * (49 * C + C * C),
    "spatial_attention_k3": lambda C: 9 * 2,
}


@pytest.mark.parametrize("name", OPERATOR_MULTIPLICATIONS)
@pytest.mark.parametrize("channels", [2, 16])
def test_a_fusion_network(name, channels):
    C = channels
    stem = 9 * 2 * 2 * C + 9 * 2 * C * C
    head = 9 * C * C + 9 * C * C // 2 + C // 2
    per_pixel = stem + C * C + OPERATOR_MULTIPLICATIONS[name](C) + head
    assert count_flops(plain(C, (name,)), 12, 20) == 2 * per_pixel * 12 * 20


def test_padding_is_paid_for():
    half = plain(4, ("dense_k3_d1",), "half")
    assert count_flops(half, 5, 1) == count_flops(half, 6, 4)  # two pixels of half the size can be reflected
    cells = (CellGenotype("multi_scale", ("dense_k3_d1",)),)
    halving = build_network(Genotype("halving", "mri-ct", "fusion", 4, cells))
    assert count_flops(halving, 5, 1) == count_flops(halving, 8, 4)


def test_a_half_stem_pays_a_quarter_inside():
    full, half = (count_flops(plain(16, ("residual_k3_d1",), stem), 32, 48) for stem in ("full", "half"))
    assert full / 4 < half < full / 3


@settings(max_examples=15)
@given(channels=st.integers(1, 8), height=st.integers(1, 100), width=st.integers(1, 100), more=st.integers(1, 9))
def test_more_pixels_channels_and_operators_never_cost_less(channels, height, width, more):
    network = plain(2 * channels, ("residual_k3_d1",))
    flops = count_flops(network, height, width)
    assert flops <= count_flops(network, height + more, width)
    assert flops <= count_flops(network, height, width + more)
    assert flops < count_flops(plain(2 * (channels + more), ("residual_k3_d1",)), height, width)
    assert flops < count_flops(plain(2 * channels, ("residual_k3_d1", "dense_k3_d1")), height, width)


@pytest.mark.parametrize("name", zoo_names())
def test_nothing_is_computed_and_nothing_changed(name):
    genotype = load_genotype(name)
    network = build_network(genotype).train()
    before = copy.deepcopy(network.state_dict())
    inputs = 3 if genotype.network == "refine" else 2
    flops = count_flops(network, 480, 640, inputs)
    # Features of this size would fill ten thousand gigabytes.
    assert count_flops(network, 100 * 480, 100 * 640, inputs) == pytest.approx(10_000 * flops, rel=1e-6)
    assert network.training
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key])


@given(genotypes())
@settings(max_examples=15)
def test_what_modules_cost_is_what_those_inside_cost(genotype):
    network, inputs = build_network(genotype), 3 if genotype.network == "refine" else 2
    flops = flops_of_modules(network, 48, 64, inputs)
    assert flops.keys() == dict(network.named_modules()).keys()
    assert flops[""] == count_flops(network, 48, 64, inputs)
    assert flops[""] == sum(flops[name] for name, _ in network.named_children())
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            assert flops[name] > 0
        assert flops[name] >= sum(flops[f"{name}.{child}".strip(".")] for child, _ in module.named_children())


def test_memory_is_that_of_the_largest_moment():
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(inplace=True),  # takes nothing
        nn.Conv2d(4, 6, 1),  # 4 and 6 maps at a time
        nn.Flatten(),  # a view
        nn.Unflatten(1, (6, 8, 10)),
        nn.Conv2d(6, 1, 1),  # 6 and 1
    )
    assert count_memory(layers, torch.rand(1, 1, 8, 10)) == 4 * 10 * 8 * 10
    assert count_memory(layers.double(), torch.rand(3, 1, 8, 10, dtype=torch.float64)) == 3 * 8 * 10 * 8 * 10


def test_memory_grows_with_the_pixels():
    network = build_network(load_genotype("tim_light")).eval()
    small, large = (count_memory(network, *torch.rand(2, 1, 1, size, size)) for size in (32, 64))
    assert large == pytest.approx(4 * small, rel=0.05)
