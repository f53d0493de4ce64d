"""Forward passes that change neither buffers nor random generators, and that all draw the same random numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .problem import BilevelProblem, Loss, checked


class Evaluate(Protocol):
    """A function that evaluates a loss without side effects."""

    def __call__(self, loss: Loss, batch: Any, module: nn.Module | None = None) -> Tensor:
        """Evaluate a loss on a batch, by default with the problem's module."""
        ...


@contextmanager
def isolated(problem: BilevelProblem) -> Iterator[Evaluate]:
    """Evaluate the losses of a problem without side effects.

    Every evaluation starts from the same random state and from a fresh copy of the buffers. Because a pass writes only
    to its copy, its graph stays valid whatever the next pass does. Gradients are enabled within the block. A loss that
    is no scalar, or has no graph, is a ValueError.

    Yields:
        The function that evaluates a loss.
    """
    devices = {tensor.device for tensor in (*problem.module.parameters(), *problem.outer_parameters)}
    cuda = [device for device in devices if device.type == "cuda"]
    host_state = torch.get_rng_state()
    cuda_states = [torch.cuda.get_rng_state(device) for device in cuda]

    def rewind() -> None:
        torch.set_rng_state(host_state)
        for device, state in zip(cuda, cuda_states, strict=True):
            torch.cuda.set_rng_state(state, device)

    def evaluate(loss: Loss, batch: Any, module: nn.Module | None = None) -> Tensor:
        rewind()
        name = "outer loss" if loss is problem.outer_loss else "inner loss"
        if module is not None:
            return checked(loss(module, batch), name)  # a copy, which has its own buffers
        with copied_buffers(problem.module):
            value = loss(problem.module, batch)
        # Where the inner variables are frozen, a loss may depend on none of the others.
        return checked(value, name, graph=bool(problem.inner_parameters))

    try:
        with torch.enable_grad():
            yield evaluate
    finally:
        rewind()


@contextmanager
def copied_buffers(module: nn.Module) -> Iterator[None]:
    """Replace a module's buffers by copies within a block, so that forward passes do not change them."""
    slots = [
        (part._buffers, name, buffer)
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    # By identity, so that a buffer which several parts share stays shared.
    copies = {id(buffer): buffer.detach().clone() for _, _, buffer in slots}
    for buffers, name, buffer in slots:
        buffers[name] = copies[id(buffer)]
    try:
        yield
    finally:
        for buffers, name, buffer in slots:
            buffers[name] = buffer


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Treat parameters as constants within a block, so that no graph reaches them."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
