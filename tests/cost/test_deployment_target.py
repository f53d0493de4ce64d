import pytest
import torch

from timfuse.cost import DeploymentTarget
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.genotypes.genotype import SOURCES
from timfuse.operators import build_network, count_flops
from timfuse.operators.inference import DenseInParts


def test_the_network_runs_as_it_is_used_and_itself_stays_as_it_is():
    genotype = Genotype("x", "infrared-visible", "fusion", 4, (CellGenotype("successive", ("dense_k3_d1",)),))
    network = build_network(genotype).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    target = DeploymentTarget(20, 18, torch.device("cpu"))
    assert 0 < target.cost("ms", network) < 2000
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    prepared = target.prepare(network)
    assert any(isinstance(module, DenseInParts) for module in prepared.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in prepared.modules())
    assert prepared.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(image.shape == (1, 1, 20, 18) for image in target.pair)
    torch.testing.assert_close(target.forward_pass(network)(), network.eval()(*target.pair), rtol=1e-4, atol=1e-5)


def test_a_refine_network_gets_an_image_to_refine():
    cells = tuple(CellGenotype("successive", ("residual_k3_d1",), source) for source in SOURCES)
    network = build_network(Genotype("x", "infrared-visible", "refine", 4, cells, merge="gated")).eval()
    target = DeploymentTarget(20, 18, torch.device("cpu"))
    first, second = target.pair
    expected = network(first, second, (first + second) / 2)
    torch.testing.assert_close(target.forward_pass(network)(), expected, rtol=1e-4, atol=1e-5)
    assert target.cost("FLOPs", network) == count_flops(network, 20, 18, inputs=3)


def test_the_cost_in_milliseconds_is_what_the_device_takes(counting):
    target = counting(20, 18)
    network = torch.nn.Bilinear(18, 18, 1)
    assert [target.cost("ms", network) for _ in range(2)] == [1.0, 2.0]
    assert target.cost("params", network) == pytest.approx(18 * 18 + 1)
