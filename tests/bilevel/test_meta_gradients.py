"""Meta-gradients: equal to their closed forms on quadratics, and without a trace in the module."""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import timfuse.bilevel.meta_gradients
from timfuse.bilevel import (
    META_GRADIENTS,
    Adaptation,
    NonFiniteError,
    adapt,
    anil,
    conjugate_gradient,
    fomaml,
    imaml,
    layers_of,
    maml,
    reptile,
)
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.objectives import TASK_LOSSES
from timfuse.operators import build_network
from timfuse.runtime.errors import UserError

RATES = (0.1, 0.3, 0.05)
SIZE = 11
every_method = pytest.mark.parametrize("name", META_GRADIENTS)
to_1e_10 = partial(torch.testing.assert_close, rtol=0, atol=1e-10)


class Layers(nn.Sequential):
    """Three layers whose weights, one after the other, are the vector w of the quadratics."""

    def __init__(self, w: Tensor) -> None:
        layers = {"body": nn.Linear(2, 2), "neck": nn.Linear(2, 1, bias=False), "head": nn.Linear(2, 1)}
        super().__init__(OrderedDict(layers))
        self.double()
        vector_to_parameters(w, self.parameters())


def quadratic_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """w'Aw / 2 - b'w, where the batch is (A, b)."""
    A, b = batch
    w = parameters_to_vector(module.parameters())
    return w @ A @ w / 2 - b @ w


def spread(layers: dict[str, list[nn.Parameter]], rates: Tensor) -> Tensor:
    """Which layer each weight belongs to, times its rate: (SIZE, layers)."""
    sizes = [sum(weight.numel() for weight in layer) for layer in layers.values()]
    return torch.block_diag(*[rate.expand(size, 1) for rate, size in zip(rates, sizes, strict=True)])


@dataclass
class Task:
    """Quadratics of which each step and the query have their own, and the closed forms."""

    theta: Tensor  # (SIZE,)
    support: list[tuple[Tensor, Tensor]]
    query: tuple[Tensor, Tensor]

    @classmethod
    def random(cls, seed: int, steps: int) -> "Task":
        generator = torch.Generator().manual_seed(seed)
        normal = partial(torch.randn, dtype=torch.float64, generator=generator)

        def quadratic() -> tuple[Tensor, Tensor]:
            basis = torch.linalg.qr(normal(SIZE, SIZE))[0]
            return basis @ torch.diag(torch.linspace(0.2, 2.0, SIZE).double()) @ basis.T, normal(SIZE)

        return cls(normal(SIZE), [quadratic() for _ in range(steps)], quadratic())

    def module(self) -> Layers:
        return Layers(self.theta.clone())

    def path(self, rates: Tensor) -> list[Tensor]:
        """w_0 to w_K by gradient descent, where the rates are those of the weights, (SIZE,)."""
        path = [self.theta]
        for A, b in self.support:
            path.append(path[-1] - rates * (A @ path[-1] - b))
        return path

    def followed(self, rates: Tensor) -> list[Tensor]:
        """The support gradients along that path, K times (SIZE,)."""
        return [A @ w - b for (A, b), w in zip(self.support, self.path(rates), strict=False)]

    def query_gradient(self, w: Tensor) -> Tensor:
        C, d = self.query
        return C @ w - d

    def query_loss(self, w: Tensor) -> float:
        C, d = self.query
        return (w @ C @ w / 2 - d @ w).item()

    def maml(self, spread_rates: Tensor, spread_ones: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients by theta, (SIZE,), and by the rates of the layers, (layers,)."""
        rates = spread_rates.sum(1)
        by_theta, by_rates = torch.eye(SIZE).double(), torch.zeros_like(spread_ones)
        for (A, _), gradient in zip(self.support, self.followed(rates), strict=True):
            step = torch.eye(SIZE).double() - torch.diag(rates) @ A
            by_theta, by_rates = step @ by_theta, step @ by_rates - spread_ones * gradient[:, None]
        outer = self.query_gradient(self.path(rates)[-1])
        return by_theta.T @ outer, by_rates.T @ outer


def adaptation_of(module: nn.Module, within: str = "", rates=RATES, **options) -> tuple[Adaptation, Tensor, Tensor]:
    """An adaptation with learnt rates, the rates of the weights, (SIZE, layers), and their layers, (SIZE, layers)."""
    layers = layers_of(module)
    kept = {name: rate for name, rate in zip(layers, rates, strict=True) if name.startswith(within)}
    learnt = torch.tensor(list(kept.values()), dtype=torch.float64, requires_grad=True)
    adaptation = Adaptation([layers[name] for name in kept], learnt, **options)
    chosen = torch.tensor([name in kept for name in layers])
    every = torch.tensor(rates, dtype=torch.float64)
    return adaptation, spread(layers, every)[:, chosen], spread(layers, torch.ones_like(every))[:, chosen]


def flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


tasks = st.builds(Task.random, seed=st.integers(0, 10_000), steps=st.integers(0, 6))


@given(task=tasks)
def test_maml_equals_its_closed_form_by_weights_and_by_rates(task):
    module = task.module()
    adaptation, rates, ones = adaptation_of(module)
    actual = maml(module, quadratic_loss, task.support, task.query, adaptation)
    by_theta, by_rates = task.maml(rates, ones)
    to_1e_10(flat(actual.initial), by_theta)
    to_1e_10(actual.rates, by_rates)
    assert actual.query_loss == pytest.approx(task.query_loss(task.path(rates.sum(1))[-1]), rel=1e-12)


@given(task=tasks)
def test_anil_is_the_maml_of_a_head_that_alone_adapts(task):
    module = task.module()
    adaptation, rates, ones = adaptation_of(module, "head")
    assert ones.sum() == 3
    actual = anil(module, quadratic_loss, task.support, task.query, adaptation)
    by_theta, by_rates = task.maml(rates, ones)
    to_1e_10(flat(actual.initial), by_theta)
    to_1e_10(actual.rates, by_rates)


@pytest.mark.parametrize("within", ["", "head"])
@given(task=tasks)
def test_fomaml_is_the_query_gradient_at_the_end(task, within):
    module = task.module()
    adaptation, rates, ones = adaptation_of(module, within)
    actual = fomaml(module, quadratic_loss, task.support, task.query, adaptation)
    outer = task.query_gradient(task.path(rates.sum(1))[-1])
    to_1e_10(flat(actual.initial), outer)
    followed = sum(task.followed(rates.sum(1)), start=torch.zeros(SIZE).double())
    to_1e_10(actual.rates, -ones.T @ (outer * followed))


@pytest.mark.parametrize("within", ["", "head"])
@given(task=tasks)
def test_reptile_is_the_sum_of_the_gradients_along_the_path(task, within):
    module = task.module()
    adaptation, rates, ones = adaptation_of(module, within)
    actual = reptile(module, quadratic_loss, task.support, task.query, adaptation)
    followed = sum(task.followed(rates.sum(1)), start=torch.zeros(SIZE).double())
    to_1e_10(flat(actual.initial), followed * ones.sum(1))
    assert actual.rates is None
    assert actual.query_loss == pytest.approx(task.query_loss(task.path(rates.sum(1))[-1]), rel=1e-12)


exact = {"iterations": 2 * SIZE, "tolerance": 1e-12}


@given(seed=st.integers(0, 10_000), strength=st.sampled_from([0.5, 1.0, 4.0]))
@settings(max_examples=15)
def test_imaml_at_the_optimum_of_the_regularised_problem(seed, strength):
    task = Task.random(seed, steps=1)
    ((A, b),) = task.support
    module = task.module()
    adaptation, _, _ = adaptation_of(module, rates=(0.3, 0.3, 0.2))
    actual = imaml(module, quadratic_loss, [(A, b)] * 200, task.query, adaptation, strength=strength, **exact)
    eye = torch.eye(SIZE).double()
    optimum = torch.linalg.solve(A + strength * eye, b + strength * task.theta)
    to_1e_10(flat(actual.initial), torch.linalg.solve(eye + A / strength, task.query_gradient(optimum)))
    assert actual.query_loss == pytest.approx(task.query_loss(optimum), rel=1e-10)
    assert actual.rates is None


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_imaml_takes_the_mean_over_the_different_support_batches(seed):
    task, strength = Task.random(seed, steps=2), 2.0
    first, second = task.support
    task.support = [first, second, first]
    module, eye = task.module(), torch.eye(SIZE).double()
    adaptation, rates, _ = adaptation_of(module)
    w = task.theta
    for A, b in task.support:
        w = w - rates.sum(1) * (A @ w - b + strength * (w - task.theta))
    actual = imaml(module, quadratic_loss, task.support, task.query, adaptation, strength=strength, **exact)
    curvature = (first[0] + second[0]) / 2
    to_1e_10(flat(actual.initial), torch.linalg.solve(eye + curvature / strength, task.query_gradient(w)))


def test_imaml_solves_by_the_estimator_of_the_search(monkeypatch):
    problems = []

    def spy(problem, outer_batch, inner_batch, **options):
        problems.append((problem, outer_batch, inner_batch, options))
        return conjugate_gradient(problem, outer_batch, inner_batch, **options)

    monkeypatch.setattr(timfuse.bilevel.meta_gradients, "conjugate_gradient", spy)
    task = Task.random(0, steps=2)
    module = task.module()
    actual = imaml(module, quadratic_loss, task.support, task.query, adaptation_of(module)[0], iterations=4)
    ((problem, query, support, options),) = problems
    assert query is task.query
    assert list(map(id, support)) == list(map(id, task.support))
    assert options == {"iterations": 4, "tolerance": 1e-6}
    to_1e_10(flat(problem.outer_parameters), task.theta)
    assert problem.inner_parameters == tuple(module.parameters())
    assert len(actual.initial) == len(problem.outer_parameters)


@pytest.mark.parametrize("make", [partial(torch.optim.Adam, eps=1e-2), partial(torch.optim.SGD, momentum=0.9)])
def test_other_optimizers_by_central_differences(make):
    task = Task.random(3, steps=3)

    def outer_loss(theta: Tensor, rates: Tensor) -> Tensor:
        module = Layers(theta.clone())
        adaptation = Adaptation(list(layers_of(module).values()), rates, make)
        adapt(module, quadratic_loss, task.support, adaptation.build_optimizer())
        return quadratic_loss(module, task.query).detach()

    module, rates = task.module(), torch.tensor(RATES, dtype=torch.float64)
    adaptation = Adaptation(list(layers_of(module).values()), rates.clone().requires_grad_(), make)
    actual = maml(module, quadratic_loss, task.support, task.query, adaptation)
    moves = 1e-5 * torch.eye(SIZE).double()
    by_theta = [(outer_loss(task.theta + h, rates) - outer_loss(task.theta - h, rates)) / 2e-5 for h in moves]
    by_rates = [
        (outer_loss(task.theta, rates + h) - outer_loss(task.theta, rates - h)) / 2e-6 for h in moves[:3, :3] / 10
    ]
    torch.testing.assert_close(flat(actual.initial), torch.stack(by_theta), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(actual.rates, torch.stack(by_rates), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("make", [torch.optim.SGD, partial(torch.optim.Adam, eps=1e-2)])
def test_fomaml_goes_to_maml_in_proportion_to_the_rate(make):
    task = Task.random(1, steps=4)
    scales = torch.logspace(-2, -5, 4).double()
    differences = []
    for scale in scales:
        module = task.module()
        adaptation = adaptation_of(module, rates=(scale * torch.tensor(RATES).double()).tolist(), optimizer=make)[0]
        ours, first = (
            method(module, quadratic_loss, task.support, task.query, adaptation) for method in (maml, fomaml)
        )
        assert ours.query_loss == pytest.approx(first.query_loss, rel=1e-12)
        differences.append((flat(ours.initial) - flat(first.initial)).norm())
    slopes = torch.stack(differences).log().diff() / scales.log().diff()
    torch.testing.assert_close(slopes, torch.ones_like(slopes), rtol=0, atol=0.02)


@every_method
def test_no_steps_leave_the_query_gradient(name):
    task = Task.random(5, steps=0)
    module = task.module()
    adaptation, _, ones = adaptation_of(module, "head" if name == "anil" else "")
    actual = META_GRADIENTS[name](module, quadratic_loss, [], task.query, adaptation)
    expected = torch.zeros_like(task.theta) if name == "reptile" else task.query_gradient(task.theta)
    to_1e_10(flat(actual.initial), expected)
    assert actual.support_loss != actual.support_loss
    if actual.rates is not None:
        assert torch.equal(actual.rates, torch.zeros(ones.shape[1]).double())


@every_method
def test_rates_that_are_not_learnt_have_no_gradient(name):
    task = Task.random(5, steps=2)
    module = task.module()
    layers = list(layers_of(module, "head" if name == "anil" else "").values())
    adaptation = Adaptation(layers, torch.full((len(layers),), 0.1))
    actual = META_GRADIENTS[name](module, quadratic_loss, task.support, task.query, adaptation)
    assert actual.rates is None
    assert not any(gradient.requires_grad for gradient in actual.initial)


def noisy_adaptation(name: str, module: nn.Module) -> Adaptation:
    layers = list(layers_of(module, "second" if name == "anil" else "").values())
    return Adaptation(layers, torch.full((len(layers),), 0.1, requires_grad=True))


def traces(module: nn.Module) -> tuple:
    """The bytes of everything that a meta-gradient must not change, and the identities of the tensors."""
    tensors = [*module.parameters(), *module.buffers()]
    tensors += [tensor.grad for tensor in tensors if tensor.grad is not None]
    return (
        [tensor.detach().numpy().tobytes() for tensor in tensors],
        [id(tensor) for tensor in tensors],
        [(tensor.requires_grad, tensor.is_leaf) for tensor in tensors],
        [part.training for part in module.modules()],
    )


@every_method
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dirty", [True, False])
def test_leaves_no_trace(name, training, dirty, noisy):
    problem, *batches, query = noisy
    module, support = problem.module.train(training), batches * 3
    if dirty:
        module.second.weight.grad = torch.full((2, 8), torch.nan)
    adaptation = noisy_adaptation(name, module)
    before, random = traces(module), torch.get_rng_state()
    actual = META_GRADIENTS[name](module, problem.outer_loss, support, query, adaptation)
    assert traces(module) == before
    assert adaptation.rates.grad is None
    assert problem.outer_parameters[0].grad is None
    assert flat(actual.initial).isfinite().all()
    assert flat(actual.initial).any()
    if not training:  # otherwise there is dropout, which draws
        assert torch.equal(torch.get_rng_state(), random)


@every_method
def test_leaves_no_trace_where_a_loss_raises(name, noisy, counts):
    problem, *batches, query = noisy
    module, support = problem.module, batches * 2
    module.first.bias.grad = torch.ones(8)
    adaptation, before = noisy_adaptation(name, module), traces(module)
    method = META_GRADIENTS[name]
    method(module, problem.outer_loss, support, query, adaptation)
    for fatal in range(1, counts["forward"] + 1):
        calls = []

        def loss(module, batch, fatal=fatal, calls=calls):
            value = problem.outer_loss(module, batch)
            calls.append(value)
            if len(calls) == fatal:
                raise KeyboardInterrupt
            return value

        with pytest.raises(KeyboardInterrupt):
            method(module, loss, support, query, adaptation)
        assert traces(module) == before


def kinked(problem, module, batch):
    """A loss that is finite where its gradient is not: the square root has an infinite slope at zero."""
    return problem.outer_loss(module, batch) + (module.second.bias - module.second.bias.detach()).sqrt().sum()


@pytest.mark.parametrize(
    ("name", "broken", "kind"),
    [
        (name, broken, kind)
        for name in META_GRADIENTS
        for broken in ("support", "query")
        for kind in ("loss", "slope")
        if (name, broken, kind) != ("reptile", "query", "slope")  # where the query batch is only scored
    ],
)
def test_refuses_what_is_not_finite_and_leaves_no_trace(name, broken, kind, noisy):
    problem, support, query = noisy
    module = problem.module

    def loss(module, batch):
        if (batch is query) != (broken == "query"):
            return problem.outer_loss(module, batch)
        return kinked(problem, module, batch) if kind == "slope" else problem.outer_loss(module, batch) * torch.nan

    adaptation, before = noisy_adaptation(name, module), traces(module)
    with pytest.raises(NonFiniteError, match="is not finite"):
        META_GRADIENTS[name](module, loss, [support] * 2, query, adaptation)
    assert traces(module) == before


@every_method
def test_batch_statistics_move_with_the_support_batches_alone(name):
    torch.manual_seed(0)
    module = nn.Sequential(OrderedDict(norm=nn.BatchNorm1d(3, momentum=0.3), head=nn.Linear(3, 1)))
    with torch.no_grad():
        module.norm.running_mean.fill_(5.0)
        module.norm.running_var.fill_(7.0)
        module.norm.num_batches_tracked.fill_(11)
    before = copy.deepcopy(module.state_dict())
    support, query = [torch.randn(16, 3) + k for k in range(3)], 100 * torch.randn(16, 3) - 1000
    layers = list(layers_of(module, "head" if name == "anil" else "").values())
    seen = []

    def loss(module, x):
        seen.append((module.norm.running_mean.clone(), x))
        return (module(x) - 1).square().mean()

    adaptation = Adaptation(layers, torch.full((len(layers),), 0.1))
    actual = META_GRADIENTS[name](module, loss, support, query, adaptation)
    mean, variance = torch.full((3,), 5.0), torch.full((3,), 7.0)
    for (start, x), batch in zip(seen, support, strict=False):
        assert x is batch
        torch.testing.assert_close(start, mean)
        mean, variance = 0.7 * mean + 0.3 * x.mean(0), 0.7 * variance + 0.3 * x.var(0)
    assert seen[3][1] is query
    torch.testing.assert_close(actual.buffers, (mean, variance, torch.tensor(14)))
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_an_optimizer_that_cannot_be_differentiated_is_one_line(name):
    task = Task.random(0, steps=1)
    module = task.module()
    adaptation = adaptation_of(module, "head" if name == "anil" else "", optimizer=torch.optim.AdamW)[0]
    with pytest.raises(UserError, match=r"^optimizer AdamW cannot be differentiated: use .*SGD or .*Adam$"):
        META_GRADIENTS[name](module, quadratic_loss, task.support, task.query, adaptation)


@pytest.mark.parametrize("method", [fomaml, reptile, imaml])
def test_the_others_take_any_optimizer(method):
    task = Task.random(0, steps=2)
    module = task.module()
    adaptation = adaptation_of(module, optimizer=torch.optim.AdamW)[0]
    actual = method(module, quadratic_loss, task.support, task.query, adaptation)
    adapt(module, quadratic_loss, task.support, adaptation.build_optimizer())
    adapted = parameters_to_vector(module.parameters()).detach()
    if method is fomaml:
        to_1e_10(flat(actual.initial), task.query_gradient(adapted))
    if method is reptile:
        rates = adaptation_of(module)[1].sum(1)
        to_1e_10(flat(actual.initial), (task.theta - adapted) / rates)


def test_anil_refuses_that_all_layers_adapt():
    task = Task.random(0, steps=1)
    module = task.module()
    with pytest.raises(ValueError, match="which is maml"):
        anil(module, quadratic_loss, task.support, task.query, adaptation_of(module)[0])


def tiny_network() -> nn.Module:
    torch.manual_seed(0)
    cells = (
        CellGenotype("multi_scale", ("residual_k3_d1", "spatial_attention_k3")),
        CellGenotype("successive", ("dense_k3_d1", "channel_attention_k3")),
    )
    return build_network(Genotype("tiny", "infrared-visible", "fusion", 4, cells))


def pairs(count: int, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.rand(2, 2, 1, 20, 24, generator=generator).to(dtype)) for _ in range(count)]


def fusion_loss(task: str):
    return lambda module, pair: TASK_LOSSES[task](module(*pair), *pair)


@every_method
@pytest.mark.parametrize("task", TASK_LOSSES)
def test_networks_with_batch_statistics_have_finite_gradients(name, task):
    module = tiny_network()
    *support, query = pairs(3)
    layers = list(layers_of(module, "head" if name == "anil" else "").values())
    adaptation = Adaptation(layers, torch.full((len(layers),), 1e-2, requires_grad=True))
    actual = META_GRADIENTS[name](module, fusion_loss(task), support, query, adaptation)
    assert [gradient.shape for gradient in actual.initial] == [weight.shape for weight in module.parameters()]
    assert all(gradient.isfinite().all() for gradient in actual.initial)
    assert flat(actual.initial).any()
    buffers = dict(zip(dict(module.named_buffers()), actual.buffers, strict=True))
    assert all(value == 2 for key, value in buffers.items() if key.endswith("num_batches_tracked"))


def test_maml_of_a_network_by_central_differences():
    module, loss = tiny_network().double(), fusion_loss("mri-pet")
    *support, query = pairs(3, torch.float64)
    layers = list(layers_of(module).values())
    rates = torch.full((len(layers),), 1e-2, dtype=torch.float64)
    actual = maml(module, loss, support, query, Adaptation(layers, rates))
    theta, norm = copy.deepcopy(list(module.parameters())), flat(actual.initial).norm().item()
    losses = []
    for move in (1e-6 / norm, -1e-6 / norm):
        with torch.no_grad():
            for weight, start, gradient in zip(module.parameters(), theta, actual.initial, strict=True):
                weight.copy_(start + move * gradient)
        losses.append(fomaml(module, loss, support, query, Adaptation(layers, rates)).query_loss)
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("name", ["fomaml", "reptile"])
def test_first_order_methods_take_a_compiled_module(name, noisy):
    problem, support, query = noisy
    module = problem.module
    torch.manual_seed(2)
    expected = META_GRADIENTS[name](module, problem.outer_loss, [support] * 2, query, noisy_adaptation(name, module))
    before = traces(module)
    torch.manual_seed(2)
    compiled = torch.compile(module, backend="aot_eager")
    actual = META_GRADIENTS[name](compiled, problem.outer_loss, [support] * 2, query, noisy_adaptation(name, compiled))
    torch.testing.assert_close(actual.initial, expected.initial)
    torch.testing.assert_close(actual.buffers, expected.buffers)
    assert traces(module) == before


@pytest.mark.parametrize("name", ["maml", "anil", "imaml"])
def test_second_order_methods_refuse_a_compiled_module(name, noisy):
    problem, support, query = noisy
    compiled = nn.Sequential(torch.compile(problem.module, backend="aot_eager"))
    layers = list(layers_of(compiled).values())[1 if name == "anil" else 0 :]
    with pytest.raises(UserError, match="is compiled"):
        META_GRADIENTS[name](
            compiled,
            lambda module, batch: problem.outer_loss(module[0], batch),
            [support],
            query,
            Adaptation(layers, torch.full((len(layers),), 0.1)),
        )
