"""The pairs of a search: read and checked, dealt out, and cut into the three streams of batches."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import torch
from torch.utils.data import Dataset

from ..data import (
    CropStream,
    LabelledBatch,
    LabelledSource,
    LabelledStream,
    Labels,
    PairBatch,
    PairSource,
    Splits,
    make_splits,
    open_labelled,
    open_source,
    stream_batches,
)
from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import UserError
from .search_config import DataSection

VALIDATION_BATCHES = 8
SCALE = (0.75, 1.5)  # by which labelled pairs are made larger, at random

Batch = PairBatch | LabelledBatch


def read_pairs(data: DataSection, seed: int) -> tuple[PairSource, Splits]:
    """Check every file before anything else happens, and deal out the pairs.

    Args:
        data: where pairs come from.
        seed: the run's seed.

    Returns:
        The pairs and which of them are for what.

    Raises:
        UserError: the folder or a file in it cannot be used, or there are too few pairs.
    """
    root = data.root and data.root.expanduser()
    source = open_source(
        root,
        minimum_size=data.crop,
        synthetic_pairs=data.synthetic_pairs,
        seed=data.seed_of(seed),
        cache_megabytes=data.cache_megabytes,
    )
    splits = make_splits(
        source.names,
        seed=data.seed_of(seed),
        folder=root,
        architecture=data.architecture,
        validation=data.validation,
    )
    return source, splits


def read_labelled_pairs(data: DataSection, labels: Labels, seed: int) -> tuple[LabelledSource, Splits]:
    """Do as `read_pairs` for a search that needs labels.

    The parts are those that `read_pairs` deals out; pairs without a label are then left out of them.

    Args:
        data: where pairs come from.
        labels: which labels.
        seed: the run's seed.

    Returns:
        The labelled pairs and which of them are for what.

    Raises:
        UserError: as for `read_pairs`, or the pairs have no such labels.
    """
    root = data.root and data.root.expanduser()
    source = open_labelled(
        root,
        labels,
        minimum_size=data.crop,
        synthetic_pairs=data.synthetic_pairs,
        seed=data.seed_of(seed),
        cache_megabytes=data.cache_megabytes,
    )
    splits = make_splits(
        (*source.names, *source.unlabelled),
        seed=data.seed_of(seed),
        folder=root,
        architecture=data.architecture,
        validation=data.validation,
    )
    parts = {name: tuple(i for i in part if i < len(source)) for name, part in asdict(splits).items()}
    for name, part in parts.items():
        if not part:
            raise UserError(f"none of the {name} pairs in {root} has a label; name more of them in labelled.txt")
    return source, Splits(**parts)


class Streams:
    """The batches for weights, architecture and validation, on the device.

    Args:
        data: how pairs are cut.
        source: the pairs.
        splits: which pairs are for what.
        seed: the run's seed.
        device: where batches go.
        ranks: the processes that share every batch.
    """

    def __init__(
        self,
        data: DataSection,
        source: PairSource,
        splits: Splits,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        def stream(name: str, indices: Sequence[int], seed: int = seed) -> CropStream:
            return CropStream(
                source, indices, batch_size=data.batch_size, crop=data.crop, seed=seed, name=name, ranks=ranks
            )

        self._weight = stream("weight", splits.weight)
        self._architecture: Dataset[Batch] = stream("architecture", splits.architecture)
        self._validation: Dataset[Batch] = stream("validation", splits.validation, data.seed_of(seed))
        self._workers = data.workers
        self._device = device

    def weight(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of weight steps `start` to `stop` (excluded)."""
        return self._batches(self._weight, start, stop, self._workers)

    def architecture(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of architecture steps `start` to `stop` (excluded), counted from the first with one."""
        return self._batches(self._architecture, start, stop, self._workers)

    def validation(self) -> Iterator[Batch]:
        """Yield the validation batches, always the same crops."""
        return self._batches(self._validation, 0, VALIDATION_BATCHES, 0)

    def _batches(self, stream: Dataset[Batch], start: int, stop: int, workers: int) -> Iterator[Batch]:
        return (batch.to(self._device) for batch in stream_batches(stream, start, stop, workers))


class LabelledStreams(Streams):
    """The batches of a search by a downstream task: those for architecture and validation carry labels.

    Args:
        data: how pairs are cut; those for the architecture are also made larger or smaller, by `SCALE`.
        source: the labelled pairs.
        splits: which pairs are for what.
        seed: the run's seed.
        device: where batches go.
        labels: which labels.
        ranks: the processes that share every batch.
    """

    def __init__(
        self,
        data: DataSection,
        source: LabelledSource,
        splits: Splits,
        seed: int,
        device: torch.device,
        labels: Labels,
        ranks: Ranks = ALONE,
    ) -> None:
        def stream(name: str, indices: Sequence[int], scale: tuple[float, float], seed: int) -> LabelledStream:
            return LabelledStream(
                source,
                indices,
                batch_size=data.batch_size,
                crop=data.crop,
                seed=seed,
                name=name,
                scale=scale,
                labels=labels,
                ranks=ranks,
            )

        super().__init__(data, source, splits, seed, device, ranks)
        self._architecture = stream("architecture", splits.architecture, SCALE, seed)
        self._validation = stream("validation", splits.validation, (1.0, 1.0), data.seed_of(seed))
