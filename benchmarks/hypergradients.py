"""Every hypergradient estimator against the closed form of a quadratic: error, passes and time.

The problem is f = w'Aw / 2 - w'Ba and F = |w - t|^2 / 2 + a'Ca / 2 in float64, where the eigenvalues of A go
from 0.1 to 2. The error is |G - truth| / |truth|, and the truth the derivative of F along w*(a), the inner
optimum. It is taken near that optimum and away from it, where estimators that do not move the weights cannot
be exact. Hessian and mixed products count as backward passes.
"""

import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from timfuse.bilevel import ESTIMATORS, BilevelProblem

INNER, OUTER, REPEATS = 50, 10, 5
NEAR, AWAY = 1e-3, 1.0  # distance of w from the inner optimum, in norms of the optimum
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("first_order", {}),
    ("gauss_newton", {}),
    ("finite_difference", {"learning_rate": 0.5}),
    ("unrolled", {"steps": 1}),
    ("unrolled", {"steps": 20}),
    ("unrolled", {"steps": 100}),
    ("neumann", {"learning_rate": 0.5, "terms": 20}),
    ("neumann", {"learning_rate": 0.5, "terms": 100}),
    ("conjugate_gradient", {"iterations": 5}),
    ("conjugate_gradient", {"iterations": 50, "tolerance": 1e-12}),
]


class Pass(torch.autograd.Function):
    """The identity on the variables, which counts how often it is passed in each direction."""

    forwards = 0
    backwards = 0

    @staticmethod
    def forward(ctx: Any, variables: Tensor) -> Tensor:
        Pass.forwards += 1
        return variables.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        Pass.backwards += 1
        return gradient


def quadratic(distance: float) -> tuple[BilevelProblem, Tensor]:
    """The problem at a distance from its inner optimum, and the true hypergradient, (OUTER,)."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    basis = torch.linalg.qr(normal(INNER, INNER))[0]
    A = basis @ torch.diag(torch.linspace(0.1, 2.0, INNER, dtype=torch.float64)) @ basis.T
    B, C, t = normal(INNER, OUTER), normal(OUTER, OUTER), normal(INNER)
    a, direction = normal(OUTER), normal(INNER)
    C = C + C.T
    optimum = torch.linalg.solve(A, B @ a)
    truth = C @ a + B.T @ torch.linalg.solve(A, optimum - t)
    module = nn.ParameterDict({"w": optimum + distance * optimum.norm() * direction / direction.norm()})
    a.requires_grad_()

    def variables(module: nn.Module) -> tuple[Tensor, ...]:
        return Pass.apply(torch.cat((a, module["w"]))).split([OUTER, INNER])

    def outer_loss(module: nn.Module, batch: None) -> Tensor:
        a, w = variables(module)
        return (w - t).square().sum() / 2 + a @ C @ a / 2

    def inner_loss(module: nn.Module, batch: None) -> Tensor:
        a, w = variables(module)
        return w @ A @ w / 2 - w @ B @ a

    return BilevelProblem(module, [a], outer_loss, inner_loss), truth


def measure(name: str, options: dict[str, Any], distance: float) -> tuple[float, int, int, float]:
    """Relative error, forward passes, backward passes and seconds of one estimate."""
    problem, truth = quadratic(distance)
    if name == "unrolled":
        options = options | {"optimizer": torch.optim.SGD(problem.module.parameters(), lr=0.5)}
    Pass.forwards = Pass.backwards = 0
    estimate = ESTIMATORS[name](problem, None, None, **options)
    forwards, backwards = Pass.forwards, Pass.backwards
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        ESTIMATORS[name](problem, None, None, **options)
        seconds.append(time.perf_counter() - start)
    error = (estimate.outer[0] - truth).norm() / truth.norm()
    return error.item(), forwards, backwards, sorted(seconds)[REPEATS // 2]


def main() -> None:
    """Print the table."""
    table = Table("estimator", "options", "error near", "error away", "forward", "backward", "ms")
    for name, options in OPTIONS:
        near, forwards, backwards, seconds = measure(name, options, NEAR)
        away = measure(name, options, AWAY)[0]
        table.add_row(
            name,
            ", ".join(f"{key}={value}" for key, value in options.items()),
            f"{near:.1e}",
            f"{away:.1e}",
            str(forwards),
            str(backwards),
            f"{1000 * seconds:.2f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
