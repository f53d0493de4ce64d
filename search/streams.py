"""The pairs of a search: read and checked, dealt out, and cut into the three streams of batches."""

from collections.abc import Iterator, Sequence

import torch

from ..data import CropStream, PairBatch, PairSource, Splits, make_splits, open_source, stream_batches
from .config import DataSection

VALIDATION_BATCHES = 8


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
        seed=seed,
        cache_megabytes=data.cache_megabytes,
    )
    splits = make_splits(
        source.names,
        seed=seed,
        folder=root,
        architecture=data.architecture,
        validation=data.validation,
    )
    return source, splits


class Streams:
    """The batches for weights, architecture and validation, on the device.

    Args:
        data: how pairs are cut.
        source: the pairs.
        splits: which pairs are for what.
        seed: the run's seed.
        device: where batches go.
    """

    def __init__(self, data: DataSection, source: PairSource, splits: Splits, seed: int, device: torch.device) -> None:
        def stream(name: str, indices: Sequence[int]) -> CropStream:
            return CropStream(source, indices, batch_size=data.batch_size, crop=data.crop, seed=seed, name=name)

        self._weight = stream("weight", splits.weight)
        self._architecture = stream("architecture", splits.architecture)
        self._validation = stream("validation", splits.validation)
        self._workers = data.workers
        self._device = device

    def weight(self, start: int, stop: int) -> Iterator[PairBatch]:
        """Yield the batches of weight steps `start` to `stop` (excluded)."""
        return self._batches(self._weight, start, stop, self._workers)

    def architecture(self, start: int, stop: int) -> Iterator[PairBatch]:
        """Yield the batches of architecture steps `start` to `stop` (excluded), counted from the end of the warm-up."""
        return self._batches(self._architecture, start, stop, self._workers)

    def validation(self) -> Iterator[PairBatch]:
        """Yield the validation batches, always the same crops."""
        return self._batches(self._validation, 0, VALIDATION_BATCHES, 0)

    def _batches(self, stream: CropStream, start: int, stop: int, workers: int) -> Iterator[PairBatch]:
        return (batch.to(self._device) for batch in stream_batches(stream, start, stop, workers))
