import copy
import gc
import math
import subprocess
import sys
import weakref
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from timfuse.bilevel import inner_loop
from timfuse.runtime.errors import UserError


def sgd(w, gradients, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """Hand-written steps of SGD, on the tape."""
    velocity = None
    for gradient in gradients:
        g = gradient(w) + weight_decay * w
        velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
        w = w - lr * (g + momentum * velocity if nesterov else velocity)
    return w


def adam(w, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Hand-written steps of Adam (Kingma and Ba, algorithm 1), on the tape."""
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, gradient in enumerate(gradients, start=1):
        g = gradient(w) + weight_decay * w
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        w = w - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return w


CASES = [
    (torch.optim.SGD, sgd, {"lr": 0.1}),
    (torch.optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.3}),
    (torch.optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.3}),
    (torch.optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}),
    (torch.optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, adam, {"lr": 0.1}),
    (torch.optim.Adam, adam, {"lr": 0.1, "eps": 0.1, "betas": (0.8, 0.9)}),
    (torch.optim.Adam, adam, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.3}),
]


class Cubic(nn.Module):
    """Weights with the inner loss sum(a w^3 / 3), whose gradient is a w^2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))

    def forward(self, a: Tensor) -> Tensor:
        return (a * self.w**3).sum() / 3


class TwoCubics(nn.ModuleList):
    """Two layers, each with the same inner loss."""

    def __init__(self) -> None:
        super().__init__([Cubic(), Cubic()])

    def forward(self, a: Tensor) -> Tensor:
        return self[0](a) + self[1](a)


@pytest.fixture
def a():
    return torch.tensor([0.7, 0.2, -0.4], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("kind", "closed_form", "settings"), CASES)
def test_steps_and_their_derivatives_equal_the_closed_form(kind, closed_form, settings, a):
    module = Cubic()
    expected = closed_form(module.w, [lambda w: a * w**2] * 4, **settings)
    with inner_loop(module, kind(module.parameters(), **settings)) as loop:
        for _ in range(4):
            (before,) = loop.parameters
            (gradient,) = loop.step(loop.module(a))
            torch.testing.assert_close(gradient, a * before**2, rtol=1e-12, atol=0)
        (actual,) = loop.parameters
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
        derivatives = torch.autograd.grad(actual.sin().sum(), (a, module.w))
    wanted = torch.autograd.grad(expected.sin().sum(), (a, module.w))
    torch.testing.assert_close(derivatives, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("kind", "closed_form", "settings"), CASES)
def test_rates_replace_those_of_the_optimizer_and_are_on_the_tape(kind, closed_form, settings, a):
    module = TwoCubics()
    roots = torch.tensor([0.3, 0.5], dtype=torch.float64, requires_grad=True)
    rates = roots.square()  # on the tape, and no leaf
    groups = [{"params": list(part.parameters())} for part in module]
    expected = [
        closed_form(part.w, [lambda w: a * w**2] * 3, **{**settings, "lr": rate})
        for part, rate in zip(module, roots.square(), strict=True)
    ]
    with inner_loop(module, kind(groups, **settings)) as loop:
        for _ in range(3):
            loop.step(loop.module(a), rates)
        torch.testing.assert_close(loop.parameters, tuple(expected), rtol=1e-12, atol=0)
        derivatives = torch.autograd.grad(sum(w.sin().sum() for w in loop.parameters), (a, roots))
    wanted = torch.autograd.grad(sum(w.sin().sum() for w in expected), (a, roots))
    torch.testing.assert_close(derivatives, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("kind", "closed_form", "settings"), CASES)
def test_steps_continue_those_of_the_optimizer(kind, closed_form, settings, a):
    module = Cubic()
    optimizer = kind(module.parameters(), **settings)

    def step():
        module.w.grad = torch.autograd.grad(module(a), module.w)[0]
        optimizer.step()

    for _ in range(3):
        step()
    weights, state = module.w.detach().clone(), copy.deepcopy(optimizer.state_dict())
    with inner_loop(module, optimizer) as loop:
        for _ in range(2):
            loop.step(loop.module(a))
        (actual,) = loop.parameters
    assert torch.equal(module.w, weights)
    torch.testing.assert_close(optimizer.state_dict(), state, rtol=0, atol=0)
    step()
    step()
    torch.testing.assert_close(actual, module.w, rtol=1e-12, atol=0)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_steps_clip_as_torch_does(max_norm, a):
    module = TwoCubics()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with inner_loop(module, optimizer, max_norm=max_norm) as loop:
        gradients = loop.step(loop.module(a))
        adapted = loop.parameters
    for weight, gradient in zip(module.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, a * weight**2)  # as it is before clipping
        weight.grad = gradient.detach()
    torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm)
    optimizer.step()
    torch.testing.assert_close(adapted, tuple(module.parameters()), rtol=1e-12, atol=0)


def test_clipping_has_finite_derivatives_at_a_gradient_of_zero(a):
    module = Cubic()
    torch.nn.init.zeros_(module.w)
    with inner_loop(module, torch.optim.SGD(module.parameters(), lr=0.1), max_norm=1.0) as loop:
        loop.step(loop.module(a))
        (derivative,) = torch.autograd.grad(loop.parameters[0].sum(), module.w)
    assert torch.equal(derivative, torch.ones(3, dtype=torch.float64))


def test_a_weight_without_gradient_goes_on_by_its_momentum(a):
    module = TwoCubics()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    module(a).backward(inputs=list(module.parameters()))
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    with inner_loop(module, optimizer) as loop:
        loop.step((a * loop.module[0].w ** 3).sum() / 3)
        adapted = [weight.detach() for weight in loop.parameters]
    module[0](a).backward(inputs=list(module[0].parameters()))
    optimizer.step()
    torch.testing.assert_close(adapted, list(module.parameters()), rtol=1e-12, atol=0)


def test_adam_has_finite_derivatives_at_a_gradient_of_zero(a):
    module = Cubic()
    with torch.no_grad():
        module.w[1] = 0.0
    with inner_loop(module, torch.optim.Adam(module.parameters(), lr=0.1, eps=0.1)) as loop:
        loop.step(loop.module(a))
        (derivative,) = torch.autograd.grad(loop.parameters[0].sum(), module.w)
    assert derivative.isfinite().all()
    assert derivative[1] == 1.0  # d(w - lr g / (|g| + eps)) / dw at g = a w^2 = 0


def test_parameters_that_the_optimizer_does_not_hold_or_the_loss_does_not_use_stay():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].requires_grad_(False)
    with inner_loop(module, torch.optim.SGD(module[2].parameters(), lr=0.1)) as loop:
        gradients = loop.step(loop.module[2].weight.square().sum())
        adapted = loop.parameters
        assert [tuple(gradient.shape) for gradient in gradients] == [(2, 2), (2,), (2, 2), (2,)]
        assert torch.equal(adapted[0], module[0].weight)
        torch.testing.assert_close(adapted[2], 0.8 * module[2].weight)
        assert torch.equal(adapted[3], module[2].bias)
        assert not gradients[3].any()


def test_the_copy_has_its_own_buffers():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = copy.deepcopy(module.state_dict())
    with inner_loop(module, torch.optim.SGD(module.parameters(), lr=0.1)) as loop:
        loop.step(loop.module(torch.randn(5, 2)).square().sum())
        assert loop.module[1].num_batches_tracked == 1
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def test_the_graphs_end_with_the_loop(a):
    module = Cubic()
    gc.collect()
    gc.disable()
    try:
        with inner_loop(module, torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)) as loop:
            loop.step(loop.module(a))
            tape = weakref.ref(loop.parameters[0])
        del loop
        assert tape() is None
    finally:
        gc.enable()


def test_detach_gives_leaves_at_the_current_weights(a):
    module = Cubic()
    with inner_loop(module, torch.optim.SGD(module.parameters(), lr=0.1)) as loop:
        loop.step(loop.module(a))
        adapted = loop.parameters
        leaves = loop.detach()
        assert leaves[0].is_leaf
        assert torch.equal(leaves[0], adapted[0])
        torch.testing.assert_close(torch.autograd.grad(loop.module(a), leaves)[0], a * leaves[0] ** 2)


def hooked(register: str) -> nn.Module:
    module = nn.Sequential(nn.Linear(1, 1))
    getattr(module[0], register)(lambda *arguments: None)
    return module


def compiled_in_place() -> nn.Module:
    module = nn.Sequential(nn.Linear(1, 1))
    module[0].compile()
    return module


class Aliased(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.table = {"linear": self.linear}


SGD = partial(torch.optim.SGD, lr=0.1)
Adam = partial(torch.optim.Adam, lr=0.1)


@pytest.mark.parametrize(
    ("make_module", "make_optimizer", "message"),
    [
        (Cubic, torch.optim.AdamW, "AdamW cannot be differentiated: use torch.optim.SGD or torch.optim.Adam"),
        (Cubic, torch.optim.RMSprop, "RMSprop cannot be differentiated"),
        (Cubic, partial(SGD, maximize=True), "SGD with maximize=True"),
        (Cubic, partial(Adam, maximize=True), "Adam with maximize=True"),
        (Cubic, partial(Adam, decoupled_weight_decay=True), "Adam with decoupled_weight_decay=True"),
        (Cubic, partial(Adam, amsgrad=True), "Adam with amsgrad=True"),
        (Cubic, partial(torch.optim.SGD, lr=torch.tensor(0.1, requires_grad=True)), "pass a float"),
        (
            Cubic,
            lambda parameters: SGD([*parameters, torch.zeros(1, requires_grad=True)]),
            "not in the module",
        ),
        (partial(hooked, "register_forward_hook"), SGD, "module '0' has hooks"),
        (partial(hooked, "register_forward_pre_hook"), SGD, "module '0' has hooks"),
        (partial(hooked, "register_full_backward_hook"), SGD, "module '0' has hooks"),
        (lambda: torch.compile(nn.Sequential(nn.Linear(1, 1))), SGD, "is compiled"),
        (Aliased, SGD, "module 'Aliased' reaches a part of itself through the plain attribute 'table'"),
        (compiled_in_place, SGD, "module '0' is compiled"),
    ],
)
def test_refuses_what_would_be_silently_wrong(make_module, make_optimizer, message):
    module = make_module()
    with (
        pytest.raises(UserError, match=message) as caught,
        inner_loop(module, make_optimizer(module.parameters())),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_higher_itself_still_has_the_edges_that_are_refused_or_mended(a):
    """If one of these fails, a newer `higher` mended it and the adapter can do less."""
    import higher

    def higher_step(optimizer, module):
        with higher.innerloop_ctx(module, optimizer) as (copied, differentiable):
            differentiable.step(copied(a))
            return next(iter(copied.parameters())).detach()

    def torch_step(optimizer, module):
        module.w.grad = torch.autograd.grad(module(a), module.w)[0]
        optimizer.step()
        return module.w.detach()

    for make in (
        partial(Adam, eps=0.1),
        partial(SGD, maximize=True),
        partial(Adam, weight_decay=0.5, decoupled_weight_decay=True),
    ):
        module = Cubic()
        optimizer = make(module.parameters())
        assert not torch.allclose(higher_step(optimizer, module), torch_step(optimizer, module), rtol=1e-3)

    module, fired = Cubic(), []
    module.register_forward_hook(lambda *arguments: fired.append(True))
    higher_step(SGD(module.parameters()), module)
    assert not fired
    with pytest.raises(ValueError, match="not supported"):
        higher_step(torch.optim.AdamW(module.parameters()), module)
    assert math.isfinite(module.w.sum().item())


def test_importing_leaks_no_warnings(tmp_path):
    # Without a cache of byte code, so that warnings of the compiler show as they do after an installation.
    command = [
        sys.executable,
        "-W",
        "always",
        "-X",
        f"pycache_prefix={tmp_path}",
        "-c",
        "import timfuse.bilevel",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "higher" not in output.stderr
