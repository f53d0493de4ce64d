"""The batches of a search: for the weights, for the architecture, and for validation."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..data import PairBatch, RunPairs
from ..data.run_pairs import Part
from ..runtime.distribution import ALONE, Ranks

VALIDATION_BATCHES = 8
SCALE = (0.75, 1.5)  # zoom of labelled pairs that score the architecture


@dataclass(frozen=True)
class SearchBatches:
    """The batches of a search on its device.

    Labelled pairs for architecture and validation are upright, and those for the architecture are zoomed by `SCALE`.

    Attributes:
        batch_size: Number of crops in a batch, over all processes.
        seed: Seed of the crops that train.
        validation_seed: Seed of the validation crops.
    """

    pairs: RunPairs
    batch_size: int
    crop: int
    seed: int
    validation_seed: int
    device: torch.device
    workers: int = 0
    ranks: Ranks = ALONE

    def weight(self, start: int, stop: int) -> Iterator[PairBatch]:
        """Yield the batches that train the weights in the steps `start` to `stop` - 1."""
        return self._batches("weight", "training", start, stop, self.seed, workers=self.workers)

    def architecture(self, start: int, stop: int) -> Iterator[PairBatch]:
        """Yield the batches `start` to `stop` - 1 that score the architecture, which has none in the warm-up."""
        return self._batches("architecture", "architecture", start, stop, self.seed, SCALE, self.workers)

    def validation(self) -> Iterator[PairBatch]:
        """Yield the validation batches, which are always the same crops."""
        return self._batches("validation", "validation", 0, VALIDATION_BATCHES, self.validation_seed, (1.0, 1.0))

    def _batches(
        self,
        name: str,
        part: Part,
        start: int,
        stop: int,
        seed: int,
        labelled_scale: tuple[float, float] | None = None,
        workers: int = 0,
    ) -> Iterator[PairBatch]:
        scale = None if self.pairs.source.labels is None else labelled_scale
        return self.pairs.batches(
            name,
            start,
            stop,
            part=part,
            batch_size=self.batch_size,
            crop=self.crop,
            seed=seed,
            scale=scale,
            upright=scale is not None,
            workers=workers,
            device=self.device,
            ranks=self.ranks,
        )
