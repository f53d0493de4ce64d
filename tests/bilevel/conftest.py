"""Two problems every estimator is tested on: a quadratic with closed forms, and a small noisy network."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from timfuse.bilevel import BilevelProblem


class Weights(nn.Module):
    """A module that is nothing but its weights."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)


@dataclass
class Quadratic:
    """f = w'Aw / 2 - w'Ba and F = |w - t|^2 / 2 + a'Ca / 2 + a'Dw in float64, with their derivatives."""

    A: Tensor  # (n, n), symmetric positive definite
    B: Tensor  # (n, m)
    C: Tensor  # (m, m), symmetric
    D: Tensor  # (m, n)
    t: Tensor  # (n,)
    a: Tensor  # (m,)
    w: Tensor  # (n,)

    @classmethod
    def random(cls, seed: int, n: int = 6, m: int = 3, lowest: float = 0.5, highest: float = 2.0) -> "Quadratic":
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        basis = torch.linalg.qr(normal(n, n))[0]
        eigenvalues = torch.linspace(lowest, highest, n, dtype=torch.float64)
        C = normal(m, m)
        return cls(
            basis @ torch.diag(eigenvalues) @ basis.T,
            normal(n, m), C + C.T, normal(m, n), normal(n), normal(m).requires_grad_(), normal(n),
        )  # fmt: skip

    def at_optimum(self) -> "Quadratic":
        self.w = torch.linalg.solve(self.A, self.B @ self.a.detach())
        return self

    def problem(self) -> BilevelProblem:
        def outer_loss(module: nn.Module, batch: object) -> Tensor:
            w, a = module.w, self.a
            return (w - self.t).square().sum() / 2 + a @ self.C @ a / 2 + a @ self.D @ w

        def inner_loss(module: nn.Module, batch: object) -> Tensor:
            return module.w @ self.A @ module.w / 2 - module.w @ self.B @ self.a

        return BilevelProblem(Weights(self.w.clone()), [self.a], outer_loss, inner_loss)

    def F_a(self, w: Tensor) -> Tensor:  # noqa: N802
        return self.C @ self.a.detach() + self.D @ w

    def F_w(self, w: Tensor) -> Tensor:  # noqa: N802
        return w - self.t + self.D.T @ self.a.detach()

    def f_a(self, w: Tensor) -> Tensor:
        return -self.B.T @ w

    def f_w(self, w: Tensor) -> Tensor:
        return self.A @ w - self.B @ self.a.detach()

    def implicit(self, damping: float = 0.0) -> Tensor:
        """F_a - f_aw (f_ww + damping I)^-1 F_w, the hypergradient itself where w is the optimum."""
        damped = self.A + damping * torch.eye(len(self.A), dtype=torch.float64)
        return self.F_a(self.w) + self.B.T @ torch.linalg.solve(damped, self.F_w(self.w))


class Pass(torch.autograd.Function):
    """The identity, which counts how often it is passed in each direction."""

    counts: dict[str, int]

    @staticmethod
    def forward(ctx, x):
        Pass.counts["forward"] += 1
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Pass.counts["backward"] += 1
        return gradient


class Noisy(nn.Module):
    """All that leaves traces: batch normalisation, dropout and a mixture weighted by an outer variable."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.norm = nn.BatchNorm1d(8)
        self.second = nn.Linear(8, 2)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("expanded", torch.ones(1).expand(4))

    def forward(self, x: Tensor, alpha: Tensor) -> Tensor:
        self.calls = self.calls + 1  # replaces the buffer, where BatchNorm writes into its own
        hidden = self.norm(self.first(x))
        mixed = alpha.softmax(0)[0] * hidden.tanh() + alpha.softmax(0)[1] * hidden.sigmoid()
        return Pass.apply(self.second(nn.functional.dropout(mixed, 0.5, self.training)))


def after_adam(quadratic: Quadratic, optimizer: torch.optim.Adam, max_norm: float) -> Tensor:
    """Take the next step of Adam by hand, clipped; return w' as a function of a, (n,)."""
    (group,), (state,) = optimizer.param_groups, optimizer.state.values()
    beta1, beta2 = group["betas"]
    g = quadratic.A @ quadratic.w - quadratic.B @ quadratic.a
    g = g * (max_norm / (g.norm() + 1e-6)).clamp(max=1.0)
    t = state["step"].item() + 1
    m = (beta1 * state["exp_avg"] + (1 - beta1) * g) / (1 - beta1**t)
    v = (beta2 * state["exp_avg_sq"] + (1 - beta2) * g * g) / (1 - beta2**t)
    return quadratic.w - group["lr"] * m / (v.sqrt() + group["eps"])


@pytest.fixture
def amid_adam():
    """A function that takes a quadratic into a training by Adam: its problem, the optimiser and the truth one step on.

    The truth is the derivative of F(a, w') by a, by reverse mode through a step of Adam that is written by hand.
    """

    def begin(quadratic: Quadratic, max_norm: float) -> tuple[BilevelProblem, torch.optim.Adam, Tensor]:
        problem = quadratic.problem()
        optimizer = torch.optim.Adam(problem.module.parameters(), lr=0.1, betas=(0.8, 0.95), eps=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            problem.inner_loss(problem.module, None).backward(inputs=problem.inner_parameters)
            optimizer.step()
        quadratic.w = problem.module.w.detach().clone()
        w, a = after_adam(quadratic, optimizer, max_norm), quadratic.a
        F = (w - quadratic.t).square().sum() / 2 + a @ quadratic.C @ a / 2 + a @ quadratic.D @ w
        return problem, optimizer, torch.autograd.grad(F, a)[0]

    return begin


@pytest.fixture
def quadratic():
    """A quadratic problem off its inner optimum."""
    return Quadratic.random(seed=0)


@pytest.fixture
def random_quadratic():
    """The constructor of quadratic problems."""
    return Quadratic.random


@pytest.fixture
def counts():
    """Passes of the noisy network so far, by direction."""
    Pass.counts = {"forward": 0, "backward": 0}
    return Pass.counts


@pytest.fixture
def noisy(counts):
    """A problem with a noisy network in training mode, and a batch for each loss."""
    torch.manual_seed(0)
    module, alpha, unused = Noisy(), torch.zeros(2, requires_grad=True), torch.zeros(4, requires_grad=True)
    batches = [(torch.randn(16, 5), torch.randn(16, 2)) for _ in range(2)]

    def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.mse_loss(module(batch[0], alpha), batch[1])

    return BilevelProblem(module, [alpha, unused], loss, loss), *batches
