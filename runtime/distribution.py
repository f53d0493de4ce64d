"""Processes that work on one run together, as `torchrun` starts them."""

import io
import itertools
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

from .errors import UserError

T = TypeVar("T")

_REASON, _END, _LEFT = "reason", "end", "left"  # keys of the store that the processes share
_END_TIMEOUT = timedelta(minutes=10)  # for the first process to report an error, while the others wait
_LEFT_TIMEOUT = timedelta(seconds=5)  # for the others to leave, while the first process waits


class LostRankError(Exception):
    """Another process of the run has ended too early."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Every process must call the methods in the same order. All processes get the same numbers, to the bit.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes in the run.
        local: Number of this process on its machine, which is also the index of its CUDA device.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Select the items that this process works on: every `count`-th one."""
        return items[self.rank :: self.count]

    def check_even(self, key: str, size: int) -> None:
        """Raise a `UserError` if the number of processes does not divide a size, which has this key in the config."""
        if size % self.count:
            sizes = {max(1, size // self.count) * self.count, (size // self.count + 1) * self.count}
            raise UserError(
                f"{key} = {size} cannot be split evenly among {self.count} ranks; take "
                f"{' or '.join(map(str, sorted(sizes)))}"
            )

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """Join the rows of all processes, in the order of the items from which they were computed.

        Adding zeros changes no number except the sign of a zero, so the result is the same as in a single process. It
        can be differentiated any number of times.

        Args:
            rows: Rows of the items that `share` gave to this process, (own, ...).
            total: Number of items of all processes together.
        """
        if self.count == 1:
            return rows
        gathered = rows.new_zeros(total, *rows.shape[1:])
        gathered[self.rank :: self.count] = rows
        return _sum(gathered)

    def average(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Average tensors over the processes in one exchange; differentiable any number of times.

        Args:
            tensors: Tensors on one device, such as a loss and its gradients on the local part of a batch.
        """
        if self.count == 1 or not tensors:
            return tuple(tensors)
        flat = _sum(torch.cat([tensor.reshape(-1) for tensor in tensors])) / self.count
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return tuple(piece.view(tensor.shape).to(tensor.dtype) for piece, tensor in zip(pieces, tensors, strict=True))

    def agree(self, value: int) -> int:
        """Return the value of the first process in all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor(value)
        with _lost_rank_error():
            distributed.broadcast(shared, src=0)
        return int(shared)

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with _lost_rank_error():
            distributed.all_gather_object(values, value)
        return values

    def from_leader(self, make: Callable[[], T]) -> T:
        """Make an object in the first process alone, and return it in all of them.

        Returns:
            The object; in the other processes a copy of it, with tensors of a GPU on their own GPU.
        """
        if self.count == 1:
            return make()
        file = io.BytesIO()
        if self.leads:
            made = make()
            torch.save(made, file)
        message = [file.getvalue()]
        with _lost_rank_error():
            distributed.broadcast_object_list(message)
        if self.leads:
            return made
        # Safe, because the bytes come from a process of the same run.
        copy: T = torch.load(io.BytesIO(message[0]), {"cuda:0": f"cuda:{self.local}"}, weights_only=False)
        return copy


ALONE = Ranks()


@contextmanager
def open_ranks() -> Iterator[Ranks]:
    """Connect the processes that `torchrun` started, until the block ends; a nested block uses the same connection.

    The processes communicate over gloo, and over nccl for tensors on CUDA devices. An error in one of them ends all:
    the first process raises a `UserError`, and the others exit silently with code 2.

    Yields:
        The processes; only this one if `torchrun` did not start it.

    Raises:
        UserError: If the others cannot be reached, or one of them had a `UserError` or ended too early.
    """
    count, local = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))
    if count == 1:
        yield ALONE
        return
    if distributed.is_initialized():
        yield Ranks(distributed.get_rank(), count, local)
        return
    store = _make_group()
    ranks = Ranks(distributed.get_rank(), count, local)
    try:
        yield ranks
    except LostRankError as error:
        if not ranks.leads:
            raise SystemExit(2) from None
        reported = store.check([_REASON])
        lost = "another process of this run has ended; see what it printed, and go on with --resume"
        raise UserError(store.get(_REASON).decode() if reported else lost) from error
    except UserError as error:
        if ranks.leads:
            raise
        with suppress(RuntimeError):  # the first process may have ended
            store.set(_REASON, f"rank {ranks.rank}: {error}")
        raise SystemExit(2) from None
    finally:
        distributed.destroy_process_group()  # this makes pending exchanges of the others fail
        with suppress(RuntimeError):
            _leave(store, ranks)


_groups = itertools.count()


@cache
def _rendezvous() -> tuple[Any, int, int]:
    """Connect to the store of all processes, once; return it, the rank of this process and their number."""
    return next(rendezvous("env://"))


def _make_group() -> Any:
    """Make the process group, and return the store beside it, which outlives the group."""
    # Parts of torch import this later. Its functions take the group at the time of import as a default argument, which
    # would keep the connections open for good.
    import torch.distributed.nn.functional

    try:
        store, rank, count = _rendezvous()
        name = f"timfuse {next(_groups)}"
        store = distributed.PrefixStore(name, store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the processes of the run do not meet at {address}: {reason}; start them with torchrun"
        ) from None
    return store


def _leave(store: Any, ranks: Ranks) -> None:
    """Let the first process leave first, because torchrun ends all processes as soon as one fails."""
    if not ranks.leads:
        store.wait([_END], _END_TIMEOUT)
        store.set(f"{_LEFT} {ranks.rank}", "")
        return
    store.set(_END, "")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # then the store lives in this process
        store.wait([f"{_LEFT} {rank}" for rank in range(1, ranks.count)], _LEFT_TIMEOUT)


class _Sum(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of the gradients in all processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        with _lost_rank_error():
            distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _sum(gradient)


def _sum(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)
    return total


@contextmanager
def _lost_rank_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo has no class of its own for this error
        traceback.clear_frames(error.__traceback__)  # frames hold connections, which could not be closed
        raise LostRankError from error
