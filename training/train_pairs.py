"""The pairs of a training: one or several data sets, mixed for training and apart for validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ..data import (
    CropStream,
    JoinedPairs,
    PairBatch,
    PairSource,
    fingerprint,
    hold_out,
    open_source,
    spread,
    stream_batches,
    unit_range,
)
from ..objectives.metrics import BASKET, METRICS
from ..runtime.distribution import ALONE, Ranks
from .train_config import DataSection

_SMALLEST = max(METRICS[name].smallest_side for name in BASKET)  # pixels, of an image that can be validated on


@dataclass(frozen=True)
class ValidationSet:
    """The validation pairs of one data set, whole.

    Attributes:
        name: Of the data set.
        source: Its pairs.
        indices: Which of them.
    """

    name: str
    source: PairSource
    indices: tuple[int, ...]

    def pairs(self, device: torch.device) -> Iterator[PairBatch]:
        """Yield each pair as a batch of one, (1, 1, H, W), on a device."""
        for index in self.indices:
            first, second = (torch.from_numpy(unit_range(image))[None, None] for image in self.source[index])
            yield PairBatch(first, second).to(device)


class TrainingPairs(NamedTuple):
    """What a training draws from.

    Attributes:
        stream: Batches of crops.
        validation: The validation pairs of each data set.
        training_count: How many training pairs there are.
    """

    stream: CropStream
    validation: tuple[ValidationSet, ...]
    training_count: int

    def fingerprint(self) -> str:
        """Tell these pairs, and what each is for, from all others."""
        held_out = [each.indices for each in self.validation]
        return fingerprint((self.stream.source.fingerprint(), self.stream.indices, held_out))

    def batches(self, start: int, stop: int, workers: int, device: torch.device) -> Iterator[PairBatch]:
        """Yield the training batches of steps `start` to `stop` (excluded) on a device."""
        return (batch.to(device) for batch in stream_batches(self.stream, start, stop, workers))


def open_pairs(data: DataSection, task: str, seed: int, ranks: Ranks = ALONE) -> TrainingPairs:
    """Check every file before anything else happens, and deal out the pairs.

    Args:
        data: where pairs come from.
        task: a key of `genotypes.TASKS`.
        seed: the run's seed.
        ranks: the processes that share every batch.

    Returns:
        The pairs for training and for validation.

    Raises:
        UserError: a folder or a file in it cannot be used, or there are too few pairs.
    """
    roots = [root and root.expanduser() for root in data.roots]
    sources: list[PairSource] = []
    validation, indices, shares = [], [], []
    for root, name, share in zip(roots, _names(roots), data.shares or [1.0] * len(roots), strict=True):
        source = open_source(
            root,
            task=task,
            minimum_size=max(data.crop, _SMALLEST),
            synthetic_pairs=data.synthetic_pairs,
            seed=seed,
            cache_megabytes=data.cache_megabytes,
        )
        training, held_out = hold_out(source.names, seed=seed, folder=root, validation=data.validation)
        validation.append(ValidationSet(name, source, spread(held_out, data.validation_pairs)))
        start = sum(len(earlier) for earlier in sources)
        indices += [start + index for index in training]
        shares += [share / len(training)] * len(training)
        sources.append(source)
    stream = CropStream(
        JoinedPairs(sources),
        indices,
        batch_size=data.batch_size,
        crop=data.crop,
        seed=seed,
        name="train",
        shares=shares if len(sources) > 1 else None,
        ranks=ranks,
    )
    return TrainingPairs(stream, tuple(validation), len(indices))


def _names(roots: Sequence[Path | None]) -> list[str]:
    """Name each data set by its folder; by its whole path where two folders have one name."""
    names = ["synthetic" if root is None else root.resolve().name for root in roots]
    return [name if names.count(name) == 1 else str(root) for name, root in zip(names, roots, strict=True)]
