"""Several processes that work on one run, as `torchrun` starts them; one process alone needs none of it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Attributes:
        rank: Number of this one, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Take this process's part of what all have to do."""
        return items[self.rank :: self.count]

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """Put the rows of all processes together, in the order of the items that they were computed from.

        Adding zeros changes no number but the sign of a zero, so the result is what one process alone would have.

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
        distributed.all_reduce(gathered)
        return gathered

    def agree(self, value: int) -> int:
        """Return the first process's value in all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor(value)
        distributed.broadcast(shared, src=0)
        return int(shared)


@contextmanager
def open_ranks() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started beside this one, over gloo, until the block ends.

    Yields:
        The processes; this one alone where `torchrun` did not start it.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    distributed.init_process_group("gloo")
    try:
        yield Ranks(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()
