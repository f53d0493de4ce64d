"""What the training of every task network shares: which parameters decay, and statistics that are averaged."""

import pytest
import torch

from timfuse.downstream import CompactDetector, build_task_network
from timfuse.downstream.task_network import average_statistics, parameter_groups
from timfuse.runtime.distribution import Ranks


@pytest.mark.parametrize(("task", "name"), [("detection", "compact"), ("segmentation", "segformer-tiny")])
def test_weight_decay_shrinks_kernels_and_no_bias_or_norm(task, name):
    if task == "segmentation":
        pytest.importorskip("transformers")
    network = build_task_network(task, name, ["background", "car"], width=8)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(parameter_groups(network, weight_decay=0.5), lr=0.1).step()
    kept = {name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])}
    one_dimension = {name for name, parameter in network.named_parameters() if parameter.ndim == 1}
    assert one_dimension
    assert all(name in one_dimension for name in before if name.endswith("bias") or "norm" in name)
    for name, parameter in network.named_parameters():
        if name in one_dimension:
            assert name in kept
        else:
            torch.testing.assert_close(parameter.detach(), 0.95 * before[name], msg=name)


def test_every_trained_parameter_is_in_one_group_and_a_frozen_one_in_none():
    network = CompactDetector(["person"], 8)
    network.stem.requires_grad_(False)
    grouped = [id(parameter) for group in parameter_groups(network, 0.1) for parameter in group["params"]]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}


class TwoProcesses(Ranks):
    """Stands for a process whose partner has zeros everywhere."""

    def average(self, tensors):
        return tuple(tensor / 2 for tensor in tensors)


def test_running_statistics_become_their_means_over_the_processes():
    network = CompactDetector(["person"], 8)
    network.pyramid(torch.rand(2, 1, 32, 32))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    weights = [parameter.detach().clone() for parameter in network.parameters()]
    average_statistics(network, TwoProcesses())
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name] if "num_batches" in name else before[name] / 2)
    assert all(map(torch.equal, weights, network.parameters()))
