import pytest
import torch

from timfuse.data import PairBatch
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.operators import build_network
from timfuse.search.search_validation import mean_losses, recalibrate


@pytest.fixture
def network():
    torch.manual_seed(0)
    cells = (
        CellGenotype("successive", ("residual_k3_d1", "separable_k3")),
        CellGenotype("multi_scale", ("dilated_k3_d2",)),
    )
    return build_network(Genotype("x", "infrared-visible", "fusion", 4, cells))


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [PairBatch(*torch.rand(2, 3, 1, 16, 16)) for _ in range(4)]


def norms(network):
    return [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_statistics_are_the_average_over_the_batches(network, batches):
    first = norms(network)[0]  # its input does not depend on other normalisations
    seen = []
    handle = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    recalibrate(network, batches)
    handle.remove()
    means = torch.stack([x.mean((0, 2, 3)) for x in seen])
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen])
    torch.testing.assert_close(first.running_mean, means.mean(0))
    torch.testing.assert_close(first.running_var, variances.mean(0))
    torch.testing.assert_close(first.running_mean, torch.cat(seen).mean((0, 2, 3)))


def test_equal_batches_give_in_evaluation_what_the_batch_gives_in_training(network, batches):
    recalibrate(network, [batches[0]] * 3)
    with torch.no_grad():
        training = network.train()(*batches[0][:2])
        evaluation = network.eval()(*batches[0][:2])
    torch.testing.assert_close(evaluation, training, rtol=0.05, atol=0.05)  # n / (n - 1) in the running variance


def test_what_the_statistics_were_before_does_not_matter(network, batches):
    recalibrate(network, batches)
    expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for norm in norms(network):
        norm.running_mean.fill_(float("nan"))
        norm.running_var.fill_(float("inf"))
    recalibrate(network, batches)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_momentum_mode_and_weights_stay(network, batches, training):
    network.train(training)
    for index, norm in enumerate(norms(network)):
        norm.momentum = 0.1 + 0.01 * index
    weights = [parameter.detach().clone() for parameter in network.parameters()]
    recalibrate(network, batches)
    assert network.training is training
    assert [norm.momentum for norm in norms(network)] == [0.1 + 0.01 * index for index in range(len(norms(network)))]
    assert all(torch.equal(*pair) for pair in zip(weights, network.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_losses_are_averaged_by_name_and_keep_their_order(batches):
    losses = {
        "second": lambda fused, batch: (fused - batch.second).mean(),
        "first": lambda fused, batch: (fused - batch.first).mean(),
    }
    means = mean_losses(lambda batch: batch.first, batches, losses)
    assert list(means) == ["second", "first"]
    assert means["first"] == 0
    expected = torch.stack([(batch.first - batch.second).mean() for batch in batches]).mean().item()
    assert means["second"] == pytest.approx(expected, abs=1e-7)
