"""Episodes: support batches for the adaptation and a query batch for its score, from different scenes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ..data import PairBatch
from ..data.batch_stream import cut_crops
from ..runtime.seeds import derive_seed
from .meta_tasks import Task

VALIDATION_CROPS = 16  # of the query batch of a validation, spread over the validation pairs


class Episode(NamedTuple):
    """The batches of one adaptation to a task.

    Attributes:
        support: One batch for each step of the adaptation; all are crops of the same pairs.
        query: Batch of other pairs, which scores the adapted network.
    """

    support: tuple[PairBatch, ...]
    query: PairBatch

    def to(self, device: torch.device) -> "Episode":
        """Move all batches to a device."""
        return Episode(tuple(batch.to(device) for batch in self.support), self.query.to(device))


class EpisodeStream(Dataset[tuple[Episode, ...]]):
    """One episode of each task for every step, a function of seed, task and step alone.

    Args:
        tasks: Tasks of this process, each with one episode in every step.
        steps: Largest number of support batches in an episode.
        pretrain: First step whose episodes have support batches.
    """

    def __init__(
        self, tasks: Sequence[Task], *, support: int, query: int, steps: int, crop: int, seed: int, pretrain: int = 0
    ) -> None:
        self.tasks = tuple(tasks)
        self._support, self._query, self._steps, self._crop, self._seed = support, query, steps, crop, seed
        self._pretrain = pretrain

    def __getitem__(self, step: int) -> tuple[Episode, ...]:
        return tuple(self.episode(task, step, self.length(step)) for task in self.tasks)

    def length(self, step: int) -> int:
        """Return the number of support batches in the episodes of a step."""
        if step < self._pretrain or self._steps == 0:
            return 0
        # Any number up to the largest, so that the initialisation is good after each of them.
        return int(
            np.random.default_rng(derive_seed(self._seed, "steps", step)).integers(1, self._steps, endpoint=True)
        )

    def pairs_of(self, task: Task, step: int) -> tuple[list[int], list[int]]:
        """Return the positions of an episode's support and query pairs, which come from different blocks."""
        return self._draw(task, self._rng(task, step))

    def episode(self, task: Task, step: int, length: int) -> Episode:
        """Cut the episode of a task and step with `length` support batches."""
        rng = self._rng(task, step)
        support, query = self._draw(task, rng)
        batches = tuple(cut_crops(task.source, support, self._crop, rng) for _ in range(length))
        return Episode(batches, cut_crops(task.source, query, self._crop, rng))

    def _draw(self, task: Task, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        blocks = [task.blocks[place] for place in rng.permutation(len(task.blocks))]
        sides: tuple[list[int], list[int]] = ([], [])
        wanted = self._support, self._query
        for block in blocks:
            # Each block goes to the side that lacks more, so that both sides come from many blocks.
            filled = [len(side) / count for side, count in zip(sides, wanted, strict=True)]
            sides[int(filled[1] < filled[0])].extend(block)
        short = [count - len(side) for side, count in zip(sides, wanted, strict=True)]
        if max(short) > 0:  # the blocks are too large; one is divided
            side = int(short[1] > 0)
            sides[side].extend(sides[1 - side][-short[side] :])
            del sides[1 - side][-short[side] :]
        support, query = (
            rng.choice(side, count, replace=False).tolist() for side, count in zip(sides, wanted, strict=True)
        )
        return support, query

    def _rng(self, task: Task, step: int) -> np.random.Generator:
        return np.random.default_rng(derive_seed(self._seed, "episode", task.name, step))


def validation_query(task: Task, crop: int, seed: int) -> PairBatch:
    """Cut the query batch that scores a task throughout a run: 16 crops of its validation pairs."""
    places = np.linspace(0, len(task.validation) - 1, VALIDATION_CROPS).round().astype(int)
    rng = np.random.default_rng(derive_seed(seed, "validation", task.name))
    return cut_crops(task.source, [task.validation[place] for place in places], crop, rng)
