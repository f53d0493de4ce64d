"""Forward and backward pass of the depthwise convolution and of PReLU against torch's own, per shape.

Run: python -m benchmarks.depthwise (from the root of the repository, with timfuse installed).
"""

import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from timfuse.operators.activation import PReLU
from timfuse.operators.depthwise import depthwise_convolution
from timfuse.runtime.memory import keep_freed_memory

ROUNDS = 31
CASES = [
    (channels, inputs, kernel, dilation)
    for channels in (16, 48)
    for inputs, kernel, dilation in ((1, 3, 1), (1, 3, 2), (1, 5, 1), (1, 5, 2), (1, 7, 1), (2, 3, 1), (3, 5, 1))
]


def native(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=len(weight))


def compare(ours: Callable[[], Tensor], torchs: Callable[[], Tensor], inputs: list[Tensor]) -> tuple[float, float]:
    """Return the median milliseconds of forward and backward of both, timed in turn."""
    gradient = torch.randn_like(torchs())
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(ROUNDS + 3):
        for function, seconds in zip((ours, torchs), times, strict=True):
            start = time.perf_counter()
            torch.autograd.grad(function(), inputs, gradient)
            if round_ >= 3:
                seconds.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    keep_freed_memory()
    torch.manual_seed(0)
    table = Table(title=f"4 x C x 64 x 64, channels last, {torch.get_num_threads()} threads: ms forward and back")
    for column in ("C", "inputs per group", "kernel", "dilation", "ours", "torch", "torch / ours"):
        table.add_column(column, justify="right")
    for channels, inputs, kernel, dilation in CASES:
        x = torch.randn(4, channels * inputs, 64, 64).to(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(channels, inputs, kernel, kernel, requires_grad=True)
        ours, torchs = compare(
            lambda x=x, weight=weight, dilation=dilation: depthwise_convolution(x, weight, dilation),
            lambda x=x, weight=weight, dilation=dilation: native(x, weight, dilation),
            [x, weight],
        )
        row = (channels, inputs, kernel, dilation, f"{ours:.2f}", f"{torchs:.2f}", f"{torchs / ours:.1f}")
        table.add_row(*map(str, row))
    x = torch.randn(4, 16, 64, 64).to(memory_format=torch.channels_last).requires_grad_()
    activation = PReLU()
    ours, torchs = compare(lambda: activation(x), lambda: F.prelu(x, activation.weight), [x, activation.weight])
    table.add_row("16", "PReLU", "", "", f"{ours:.2f}", f"{torchs:.2f}", f"{torchs / ours:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
