"""The moving average against its formula."""

import pytest
import torch
from torch import nn

from timfuse.runtime.averaging import moving_average


def test_it_follows_its_formula():
    network = nn.Linear(1, 1, bias=False).double()
    average = moving_average(network, 0.7)
    expected = network.weight.item()
    average.update_parameters(network)
    for count in range(1, 30):
        with torch.no_grad():
            network.weight.normal_()
        average.update_parameters(network)
        decay = min(0.7, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * network.weight.item()
    assert average.module.weight.item() == pytest.approx(expected, abs=1e-12)
