"""Folded networks against what they stand for: every operator, every cell, all networks."""

import pytest
import torch
from torch import nn

from timfuse.genotypes import ALL_OPERATORS, CellGenotype, Genotype, load_genotype, zoo_names
from timfuse.operators import build_network, build_operator, fold_batch_norm

OPERATORS = [name for name in ALL_OPERATORS if "_k3" in name or "_k5" in name or name == "identity"]


def norms(module):
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", OPERATORS)
@torch.no_grad()
def test_operators(randomise, normal, name):
    operator = randomise(build_operator(name, 4)).eval()
    folded = fold_batch_norm(operator)
    x = normal(2, 4, 9, 10)
    torch.testing.assert_close(folded(x), operator(x), rtol=1e-12, atol=1e-12)
    assert norms(folded) == []


@pytest.mark.parametrize("name", zoo_names())
@torch.no_grad()
def test_networks(randomise, normal, name):
    genotype = load_genotype(name)
    network = randomise(build_network(genotype))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert norms(folded) == []
    assert not folded.training
    images = normal(3 if genotype.network == "refine" else 2, 1, 1, 13, 18)
    expected = network.eval()(*images)
    expected = expected if isinstance(expected, tuple) else (expected,)
    outputs = folded(*images)
    for output, image in zip(outputs if isinstance(outputs, tuple) else (outputs,), expected, strict=True):
        torch.testing.assert_close(output, image, rtol=1e-10, atol=1e-10)
    for key, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0)


@torch.no_grad()
def test_a_decomposition_cell(randomise, normal):
    cells = (CellGenotype("decomposition", ("separable_k3", "dilated_k5_d2")),)
    network = randomise(build_network(Genotype("test", "mri-ct", "fusion", 4, cells))).eval()
    folded = fold_batch_norm(network)
    assert norms(folded) == []
    images = normal(2, 1, 1, 12, 12)
    torch.testing.assert_close(folded(*images), network(*images), rtol=1e-10, atol=1e-10)


def test_other_normalisations_stay():
    operator = build_operator("residual_k3_d1", 8, norm="group")
    assert isinstance(fold_batch_norm(operator).norm, nn.GroupNorm)
