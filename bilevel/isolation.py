"""Forward passes that leave no trace in buffers or random-number generators and all see the same noise."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .problem import BilevelProblem, Loss


class Evaluate(Protocol):
    """A forward pass without traces."""

    def __call__(self, loss: Loss, batch: Any, module: nn.Module | None = None) -> Tensor:
        """Evaluate a loss on a batch, with the problem's module unless another one is given."""
        ...


@contextmanager
def isolated(problem: BilevelProblem) -> Iterator[Evaluate]:
    """Yield an `Evaluate` whose every call starts from the same random state and a fresh copy of the buffers.

    Passes write to copies that stand in for the buffers, so that the buffers themselves are never written to
    and the graph of a pass stays valid whatever the next pass does. Gradients are enabled inside.
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
        if module is not None:
            return loss(module, batch)  # a copy, which has its own buffers
        with copied_buffers(problem.module):
            return loss(problem.module, batch)

    try:
        with torch.enable_grad():
            yield evaluate
    finally:
        rewind()


@contextmanager
def copied_buffers(module: nn.Module) -> Iterator[None]:
    """Let copies stand in for a module's buffers, which themselves are neither written to nor replaced inside."""
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
    """Take parameters as constants: no graph that is recorded inside reaches them."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
