"""Several processes that work on one run, as `torchrun` starts them; one process alone needs none of it."""

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
_PATIENCE = timedelta(minutes=10)  # of a process that waits until the first one has told what is wrong
_FAREWELL = timedelta(seconds=5)  # of the first one, that waits until the others have heard


class LostRankError(Exception):
    """Another process of the run has ended before its time."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Every process must call the methods in the same order, and sees the same numbers afterwards, to the bit.

    Attributes:
        rank: Number of this one, from 0.
        count: How many there are.
        local: Number of this one among those of its machine, and of the CUDA device that it takes.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Take this process's part of what all have to do."""
        return items[self.rank :: self.count]

    def check_even(self, key: str, size: int) -> None:
        """Check that `share` gives every process as many items as the others.

        Args:
            key: What the user calls the number, for the error.
            size: How many items there are.

        Raises:
            UserError: It does not.
        """
        if size % self.count:
            sizes = {max(1, size // self.count) * self.count, (size // self.count + 1) * self.count}
            raise UserError(
                f"{key} = {size} cannot be split evenly among {self.count} ranks; take "
                f"{' or '.join(map(str, sorted(sizes)))}"
            )

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """Put the rows of all processes together, in the order of the items that they were computed from.

        Adding zeros changes no number but the sign of a zero, so the result is what one process alone would have.
        It can be differentiated, any number of times.

        Args:
            rows: (own, ...) of the items that `share` gave this process.
            total: How many items all processes have together.

        Returns:
            (total, ...), the same in every process.
        """
        if self.count == 1:
            return rows
        gathered = rows.new_zeros(total, *rows.shape[1:])
        gathered[self.rank :: self.count] = rows
        return _sum(gathered)

    def average(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Average tensors over the processes, all in one exchange; can be differentiated, any number of times.

        Args:
            tensors: Of one device, such as a loss and its gradients on this process's part of a batch.

        Returns:
            Their means, in the same shapes.
        """
        if self.count == 1 or not tensors:
            return tuple(tensors)
        flat = _sum(torch.cat([tensor.reshape(-1) for tensor in tensors])) / self.count
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return tuple(piece.view(tensor.shape).to(tensor.dtype) for piece, tensor in zip(pieces, tensors, strict=True))

    def agree(self, value: int) -> int:
        """Return the first process's value in all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor(value)
        with _telling_of_loss():
            distributed.broadcast(shared, src=0)
        return int(shared)

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes, in their order, in each of them."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with _telling_of_loss():
            distributed.all_gather_object(values, value)
        return values

    def from_leader(self, make: Callable[[], T]) -> T:
        """Let the first process alone make something, for which the others wait, and give it to all.

        Args:
            make: Called by the first process. What it raises ends the others as well.

        Returns:
            What was made; in the other processes a copy of it, with tensors of a GPU on their own one.
        """
        if self.count == 1:
            return make()
        file = io.BytesIO()
        if self.leads:
            made = make()
            torch.save(made, file)
        message = [file.getvalue()]
        with _telling_of_loss():
            distributed.broadcast_object_list(message)
        if self.leads:
            return made
        # From a process of the same run, not from a file.
        copy: T = torch.load(io.BytesIO(message[0]), {"cuda:0": f"cuda:{self.local}"}, weights_only=False)
        return copy


ALONE = Ranks()


def leads() -> bool:
    """Tell whether this process reports: the one of rank 0, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def open_ranks() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started beside this one until the block ends; within such a block, use it.

    They meet over gloo; tensors on CUDA devices over nccl. An error in any of them ends all: the first raises a
    `UserError`, the others exit with code 2 and without a word.

    Yields:
        The processes; this one alone where `torchrun` did not start it.

    Raises:
        UserError: The others cannot be reached, or one of them had a `UserError` or ended before its time.
    """
    count, local = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))
    if count == 1:
        yield ALONE
        return
    if distributed.is_initialized():
        yield Ranks(distributed.get_rank(), count, local)
        return
    store = _join()
    ranks = Ranks(distributed.get_rank(), count, local)
    try:
        yield ranks
    except LostRankError as error:
        if not ranks.leads:
            raise SystemExit(2) from None
        told = store.check([_REASON])
        lost = "another process of this run has ended; see what it printed, and go on with --resume"
        raise UserError(store.get(_REASON).decode() if told else lost) from error
    except UserError as error:
        if ranks.leads:
            raise
        with suppress(RuntimeError):  # where the first process is gone there is nobody to tell
            store.set(_REASON, f"rank {ranks.rank}: {error}")
        raise SystemExit(2) from None
    finally:
        distributed.destroy_process_group()  # by which the others learn of an error, wherever they are
        with suppress(RuntimeError):
            _part(store, ranks)


_joined = itertools.count()


@cache
def _meet() -> tuple[Any, int, int]:
    """Return the store that the processes share as long as they live, this one's number and how many there are."""
    return next(rendezvous("env://"))


def _join() -> Any:
    """Make the process group, and return the store beside it, which outlives its connections."""
    # Parts of torch import this later on; its functions have the group of that moment as a default, by which the
    # connections would stay open for good.
    import torch.distributed.nn.functional

    try:
        store, rank, count = _meet()
        name = f"timfuse {next(_joined)}"
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


def _part(store: Any, ranks: Ranks) -> None:
    """Leave after the first process, since torchrun ends all as soon as one has failed, and it must have its say."""
    if not ranks.leads:
        store.wait([_END], _PATIENCE)
        store.set(f"{_LEFT} {ranks.rank}", "")
        return
    store.set(_END, "")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # then the store ends with this process
        store.wait([f"{_LEFT} {rank}" for rank in range(1, ranks.count)], _FAREWELL)


class _Sum(torch.autograd.Function):
    """The sum over the processes; that of the gradients that all of them have by it is its gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        with _telling_of_loss():
            distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _sum(gradient)


def _sum(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)
    return total


@contextmanager
def _telling_of_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo has no error of its own for this
        traceback.clear_frames(error.__traceback__)  # which hold the connections, so that they could not be closed
        raise LostRankError from error
