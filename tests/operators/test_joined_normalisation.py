"""Batch normalisation by several processes is that of the joined batch, up to its second derivatives."""

import copy

import pytest
import torch
from torch import nn

from timfuse.operators.normalisation import BatchNorm, synchronised
from timfuse.runtime.distribution import ALONE, Ranks

from ..processes import finish, start

# What comes out, the gradients of a loss that is a mean over the batch, and those of a weighted sum of these gradients.
PROGRAM = """
import sys
from pathlib import Path
import torch
from timfuse.operators.normalisation import synchronised
from timfuse.runtime.distribution import open_ranks

folder = Path(sys.argv[1])
norm, x, scale = torch.load(folder / "given.pt", weights_only=False)
with open_ranks() as ranks, synchronised(norm, ranks):
    x = x[ranks.rank :: ranks.count].contiguous(memory_format=torch.channels_last).requires_grad_()
    variables = (x, norm.weight, norm.bias, scale.requires_grad_())
    y = norm(x, scale)
    plain = torch.autograd.grad((y.tanh() + y.pow(3)).mean(), variables)
    y = norm(x, scale)
    first = torch.autograd.grad((y.tanh() + y.pow(3)).mean(), variables, create_graph=True)
    weights = [torch.linspace(-1, 1, gradient.numel(), dtype=gradient.dtype) for gradient in first[1:]]
    weighted = sum(gradient.flatten() @ weight for gradient, weight in zip(first[1:], weights))
    second = torch.autograd.grad(weighted, variables)
    torch.save([y.detach(), plain, second, norm.state_dict()], folder / f"{ranks.rank} of {ranks.count}.pt")
"""


@pytest.mark.slow
def test_parts_give_the_values_and_derivatives_of_the_whole(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    torch.manual_seed(0)
    norm = BatchNorm(5, dtype=torch.float64)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    # Far from zero, where a mean of squares less a squared mean would lose eight digits.
    x = torch.randn(4, 5, 6, 7, dtype=torch.float64) + torch.tensor([0.0, 1.0, -1e2, 1e4, 0.0]).view(5, 1, 1)
    torch.save([norm, x, torch.tensor(0.7, dtype=torch.float64)], tmp_path / "given.pt")
    codes, _, lines = finish([process for count in (1, 2) for process in start([str(program), str(tmp_path)], count)])
    assert codes == [0, 0, 0], lines
    y, *gradients, state = torch.load(tmp_path / "0 of 1.pt")
    parts = [torch.load(tmp_path / f"{rank} of 2.pt") for rank in range(2)]

    def joined(rows):
        return torch.stack(rows, 1).flatten(0, 1)

    close = {"rtol": 1e-8, "atol": 1e-10}
    torch.testing.assert_close(joined([part[0] for part in parts]), y, **close)
    for place, (by_x, *by_others) in enumerate(gradients, start=1):
        # The loss of the whole is the mean of those of the parts, and so are its gradients.
        torch.testing.assert_close(joined([part[place][0] for part in parts]) / 2, by_x, **close)
        for index, expected in enumerate(by_others, start=1):
            torch.testing.assert_close(sum(part[place][index] for part in parts) / 2, expected, **close)
    for part in parts:
        torch.testing.assert_close(part[-1], state, **close)


def test_one_process_and_evaluation_need_no_other():
    norm, x = BatchNorm(3), torch.randn(2, 3, 4, 4)
    expected = copy.deepcopy(norm)(x)
    with synchronised(nn.Sequential(norm, nn.ReLU()), ALONE):
        assert torch.equal(norm(x), expected)
    with synchronised(norm, Ranks(0, 2)):
        norm.eval()(x)
    assert norm.ranks is ALONE
