"""The receptive field against the gradient of single output pixels."""

import pytest
import torch
from torch import nn

from timfuse.genotypes import ALL_OPERATORS, CellGenotype, Genotype, load_genotype
from timfuse.operators import beyond_crops, build_network, receptive_field
from timfuse.operators.pooling import GlobalMean

KINDS = ["successive", "multi_scale", "decomposition", "stage"]


def fusion(kind, *operators, stem="full", cells=1):
    return Genotype("test", "infrared-visible", "fusion", 2, (CellGenotype(kind, operators),) * cells, stem=stem)


def measured(network, reach, images=2):
    """The largest distance between an output pixel and an input pixel with an influence on it, means aside."""
    for module in list(network.modules()):
        if isinstance(module, GlobalMean):
            module.register_forward_hook(lambda module, maps, mean: mean.detach())
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):  # where it is zero, nothing has an influence
                setattr(module, name, nn.Identity())
    period = max(8, network.multiple)
    centre = (reach // period + 2) * period
    first = torch.rand(images, 1, 1, 2 * centre, 2 * centre, dtype=torch.float64).requires_grad_()
    output = network(*first)
    output = output[2] if isinstance(output, tuple) else output
    distances = []
    for phase in range(period):
        (gradient,) = torch.autograd.grad(output[0, 0, centre + phase, centre + phase], first, retain_graph=True)
        for axis in (-1, -2):
            touched = gradient.abs().movedim(axis, 0).flatten(1).sum(1).nonzero()
            distances += [centre + phase - touched.min().item(), touched.max().item() - centre - phase]
    return max(distances)


@pytest.mark.parametrize("name", [name for name in ALL_OPERATORS if not name.startswith("non_local")])
def test_every_operator(randomise, name):
    genotype = fusion("successive", name)
    reach = receptive_field(genotype)
    assert measured(randomise(build_network(genotype)).eval(), reach) == reach


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stem", ["full", "half"])
@pytest.mark.parametrize(("operators", "cells"), [(["channel_attention_k3"], 1), (["dilated_k3_d1"], 2)])
def test_every_cell_and_stem(randomise, kind, stem, operators, cells):
    genotype = fusion(kind, *operators, stem=stem, cells=cells)
    reach = receptive_field(genotype)
    assert measured(randomise(build_network(genotype)).eval(), reach) == reach


def test_the_farther_branch_of_a_refine_network(randomise):
    branches = [("dilated_k3_d1", "first"), ("dilated_k5_d2", "second"), ("dilated_k5_d1", "second")]
    cells = [CellGenotype("successive", (name,), source) for name, source in branches]
    genotype = Genotype("test", "mri-ct", "refine", 2, tuple(cells), merge="gated")
    assert receptive_field(genotype) == 4 + 6
    assert measured(randomise(build_network(genotype)).eval(), 10, images=3) == 10


@pytest.mark.parametrize(
    ("channels", "cells"),
    [
        ((2,), [(0, "successive", "plain_k3")]),
        ((2, 4), [(1, "successive", "plain_k3")]),
        ((2, 2, 4), [(0, "successive", "dilated_k5_d2"), (2, "successive", "plain_k5"), (2, "successive", "plain_k3")]),
        ((2, 2), [(0, "multi_scale", "plain_k3"), (1, "decomposition", "identity")]),
        ((0, 2), [(1, "successive", "plain_k3")]),
        ((2, 2), [(0, "stage", "plain_k3"), (1, "stage", "inverted_k5"), (1, "stage", "identity")]),
        ((0, 2, 4), [(1, "stage", "inverted_k3"), (2, "stage", "plain_k5")]),
        ((0, 0, 2, 4), [(2, "successive", "plain_k5"), (3, "successive", "plain_k3")]),
    ],
)
def test_pyramids(randomise, channels, cells):
    genotypes = tuple(CellGenotype(kind, (name,), level=level) for level, kind, name in cells)
    genotype = Genotype("test", "mri-ct", "pyramid", channels, genotypes, stem="half", head="bands")
    reach = receptive_field(genotype)
    assert measured(randomise(build_network(genotype).double()).eval(), reach) == reach


def test_a_non_local_operator_has_none():
    assert receptive_field(fusion("successive", "dilated_k3_d1", "non_local_k3")) is None


def test_the_published_networks():
    assert receptive_field(load_genotype("tim_light")) == 4 + 2 * (3 + 1)
    assert receptive_field(load_genotype("tim_ivif")) == 4 + 2 * (1 + 2)


def test_what_lies_beyond_the_crops():
    network = load_genotype("ivif")
    radius = receptive_field(network)
    assert beyond_crops(network, radius) is None
    assert f"ivif sees {radius} pixels far, beyond the crops of {radius - 1}" in beyond_crops(network, radius - 1)
