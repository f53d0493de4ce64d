"""Estimators that several processes run on parts of each batch give what one gives on the whole batches."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from timfuse.bilevel import ESTIMATORS, BilevelProblem, NonFiniteError

COUNT = 2
OPTIONS = {
    "first_order": {},
    "gauss_newton": {},
    "finite_difference": {},
    "unrolled": {"steps": 3},
    "neumann": {"terms": 4, "learning_rate": 0.1},
    "conjugate_gradient": {"iterations": 3, "damping": 1.0, "tolerance": 0.0},
}
# One for each pass backwards: losses travel with their gradients, but for those of `unrolled`.
EXCHANGES = {
    "first_order": 1,
    "gauss_newton": 2,
    "finite_difference": 4,
    "unrolled": 3 + 1 + 1 + 3 + 1,
    "neumann": 2 + 4 + 1,
    "conjugate_gradient": 2 + 3 + 1,
}


class Meeting:
    """Threads in the place of processes: each thread's tensors are averaged with those of all others."""

    def __init__(self, count: int) -> None:
        self._barrier, self._tensors, self._count = threading.Barrier(count, timeout=30), {}, count
        self.exchanges = 0

    def average(self, tensors):
        flat = self.mean(torch.cat([tensor.reshape(-1) for tensor in tensors]))
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return tuple(piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True))

    def mean(self, tensor):
        meeting = self

        class Mean(torch.autograd.Function):
            @staticmethod
            def forward(ctx, tensor):
                meeting._tensors[threading.get_ident()] = tensor
                if meeting._barrier.wait() == 0:
                    meeting.exchanges += 1
                total = sum(meeting._tensors[key] for key in sorted(meeting._tensors)) / meeting._count
                meeting._barrier.wait()
                return total

            @staticmethod
            def backward(ctx, gradient):
                return meeting.mean(gradient)

        return Mean.apply(tensor)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(5, 7, dtype=torch.float64), nn.Linear(7, 1, dtype=torch.float64)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)

    def forward(self, x, alpha):
        hidden = self.first(x)
        mixture = alpha.softmax(0)
        return self.second(mixture[0] * hidden.tanh() + mixture[1] * hidden.sigmoid())


def problem(average=tuple, poison=0.0):
    alpha = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)

    def inner(module, batch):
        return nn.functional.mse_loss(module(batch[0], alpha), batch[1])

    def outer(module, batch):
        return nn.functional.smooth_l1_loss(module(batch[0], alpha), batch[1]) + poison

    return BilevelProblem(Network(), [alpha], outer, inner, average)


def batches(rows):
    generator = torch.Generator().manual_seed(1)
    whole = [[torch.randn(12, size, dtype=torch.float64, generator=generator) for size in (5, 1)] for _ in range(2)]
    return [[tensor[rows] for tensor in batch] for batch in whole]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_parts_give_the_hypergradient_of_the_whole(name):
    estimator, meeting = ESTIMATORS[name], Meeting(COUNT)
    whole = estimator(problem(), *batches(slice(None)), **OPTIONS[name])
    with ThreadPoolExecutor(COUNT) as threads:
        parts = [
            threads.submit(estimator, problem(meeting.average), *batches(slice(rank, None, COUNT)), **OPTIONS[name])
            for rank in range(COUNT)
        ]
        estimates = [part.result() for part in parts]
    for estimate in estimates:
        torch.testing.assert_close(estimate.outer, whole.outer, rtol=0, atol=1e-14)
        assert (estimate.inner is None) == (whole.inner is None)
        if whole.inner is not None:
            torch.testing.assert_close(estimate.inner, whole.inner, rtol=0, atol=1e-14)
        assert estimate.diagnostics == pytest.approx(whole.diagnostics, rel=0, abs=1e-12)
    assert all(map(torch.equal, estimates[0].outer, estimates[1].outer))
    assert meeting.exchanges == EXCHANGES[name]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_loss_that_is_not_finite_in_one_part_is_refused_by_all(name):
    meeting = Meeting(COUNT)
    with ThreadPoolExecutor(COUNT) as threads:
        parts = [
            threads.submit(
                ESTIMATORS[name],
                problem(meeting.average, poison=rank * torch.inf if rank else 0.0),
                *batches(slice(rank, None, COUNT)),
                **OPTIONS[name],
            )
            for rank in range(COUNT)
        ]
        for part in parts:
            with pytest.raises(NonFiniteError, match="outer loss F is not finite"):
                part.result()
