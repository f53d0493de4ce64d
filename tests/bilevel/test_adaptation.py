"""Adaptation: plain optimiser steps, layers with a rate each, and a module that comes back as it was."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from timfuse.bilevel import Adaptation, adapt, layers_of, restored


class Shared(nn.Module):
    """An own parameter, a part of parts, tied weights, a part that comes twice, and one that is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.body = nn.Sequential(nn.Linear(3, 3), nn.PReLU(), nn.Sequential(nn.Linear(3, 3, bias=False)))
        self.again = self.body[0]
        self.fixed = nn.Linear(3, 3).requires_grad_(False)
        self.head = nn.Linear(3, 3)
        self.head.weight = self.body[2][0].weight
        self.header = nn.Linear(3, 1)


def test_layers_are_the_parts_that_own_parameters_by_name_in_order():
    module = Shared()
    layers = layers_of(module)
    assert list(layers) == ["", "body.0", "body.1", "body.2.0", "head", "header"]
    assert [list(map(id, layer)) for layer in layers.values()] == [
        [id(module.scale)],
        [id(module.body[0].weight), id(module.body[0].bias)],
        [id(module.body[1].weight)],
        [id(module.body[2][0].weight)],
        [id(module.head.bias)],
        [id(module.header.weight), id(module.header.bias)],
    ]


def test_layers_hold_each_parameter_that_requires_grad_once():
    module = Shared()
    held = [id(parameter) for layer in layers_of(module).values() for parameter in layer]
    assert held == [id(parameter) for parameter in module.parameters() if parameter.requires_grad]


@pytest.mark.parametrize(
    ("within", "names"),
    [
        ("body", ["body.0", "body.1", "body.2.0"]),
        ("body.2", ["body.2.0"]),
        ("head", ["head"]),  # and not header
        ("fixed", []),
        ("absent", []),
    ],
)
def test_layers_within_a_part_are_those_of_the_whole(within, names):
    module = Shared()
    layers, every = layers_of(module, within), layers_of(module)
    assert list(layers) == names
    assert all(list(map(id, layers[name])) == list(map(id, every[name])) for name in names)


def quadratic_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    A, b = batch
    w = torch.cat([weight.reshape(-1) for weight in module.parameters()])
    return w @ A @ w / 2 - b @ w


def quadratics(steps: int, size: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(steps, size, size, generator=generator, dtype=torch.float64)
    return list(zip(roots @ roots.mT / size, torch.randn(steps, size, generator=generator).double(), strict=True))


@pytest.mark.parametrize("rates", [(0.1, 0.3), (0.2, 0.0)])
@given(steps=st.integers(0, 5))
def test_each_layer_moves_at_its_rate(rates, steps):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).double()
    adaptation = Adaptation(list(layers_of(module).values()), torch.tensor(rates).double())
    w = torch.cat([weight.detach().reshape(-1) for weight in module.parameters()])
    by_weight = torch.tensor([rates[0]] * 6 + [rates[1]] * 3).double()
    support, expected = quadratics(steps, 9), []
    for A, b in support:
        expected.append(w @ A @ w / 2 - b @ w)
        w = w - by_weight * (A @ w - b)
    losses = adapt(module, quadratic_loss, support, adaptation.build_optimizer())
    adapted = torch.cat([weight.detach().reshape(-1) for weight in module.parameters()])
    torch.testing.assert_close(adapted, w, rtol=0, atol=1e-10)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-10)
    assert not any(loss.requires_grad for loss in losses)
    assert all(weight.grad is None for weight in module.parameters())


@pytest.mark.parametrize("make", [torch.optim.SGD, partial(torch.optim.SGD, momentum=0.9), torch.optim.AdamW])
def test_goes_on_with_the_state_of_the_optimizer(make):
    support, ends = quadratics(6, 9), []
    for pieces in ((support,), (support[:2], iter(support[2:]))):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).double()
        optimizer = Adaptation(list(layers_of(module).values()), torch.tensor([0.1, 0.2]), make).build_optimizer()
        assert type(optimizer) is (make.func if isinstance(make, partial) else make)
        assert [group["lr"] for group in optimizer.param_groups] == torch.tensor([0.1, 0.2]).tolist()
        for piece in pieces:
            adapt(module, quadratic_loss, piece, optimizer)
        ends.append([weight.detach() for weight in module.parameters()])
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


def test_weights_of_other_layers_stay_and_gather_no_gradients():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    before = [weight.detach().clone() for weight in module.parameters()]
    adaptation = Adaptation(list(layers_of(module, "2").values()), torch.tensor([0.1]))
    adapt(module, lambda module, x: module(x).sum(), [torch.randn(4, 2)] * 3, adaptation.build_optimizer())
    assert all(map(torch.equal, before[:4], module.parameters()))
    assert all(weight.grad is None for weight in module.parameters())
    assert module[1].num_batches_tracked == 3


def test_a_rate_for_each_layer():
    module = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="zip"):
        Adaptation(list(layers_of(module).values()), torch.tensor([0.1, 0.2])).build_optimizer()


class Buffers(nn.Module):
    """Buffers that are written to, replaced, shared, expanded, and None."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.fixed = nn.Parameter(torch.randn(2), requires_grad=False)
        self.inner = nn.Module()
        for part in (self, self.inner):
            part.register_buffer("written", torch.zeros(3))
        self.inner.written = self.written
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("expanded", torch.ones(1).expand(4))
        self.register_buffer("nothing", None)


@pytest.mark.parametrize("dirty", [True, False])
@pytest.mark.parametrize("raises", [True, False])
def test_restored_gives_everything_back(raises, dirty):
    module = Buffers()
    module.weight.data = module.weight.data.T.contiguous().T  # another layout
    if dirty:
        module.weight.grad = torch.full((4, 3), torch.nan)
    tensors = [*module.parameters(), *module.buffers(), *([module.weight.grad] if dirty else [])]
    identities = list(map(id, tensors))
    values = [tensor.detach().clone() for tensor in tensors]

    def work():
        with restored(module) as initial:
            assert [id(tensor) for tensor in module.parameters()] == identities[:2]
            with torch.no_grad():
                module.weight.add_(1)
            module.weight.grad = torch.ones(4, 3)
            module.written.add_(1)
            assert torch.equal(module.inner.written, torch.ones(3))  # still shared
            module.replaced = module.replaced + 1
            assert len(initial) == 1
            assert torch.equal(initial[0], values[0])
            if raises:
                raise KeyboardInterrupt

    if raises:
        with pytest.raises(KeyboardInterrupt):
            work()
    else:
        work()
    after = [*module.parameters(), *module.buffers(), *([module.weight.grad] if dirty else [])]
    assert list(map(id, after)) == identities
    assert module.inner.written is module.written
    assert module.nothing is None
    assert module.weight.stride() == (1, 4)
    assert (module.weight.grad is None) != dirty
    torch.testing.assert_close([tensor.detach() for tensor in after], values, rtol=0, atol=0, equal_nan=True)
