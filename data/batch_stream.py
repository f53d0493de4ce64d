"""Endless streams of training batches; each batch is a function of the seed and its step alone."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import UserError
from ..runtime.seeds import derive_seed
from .colour import chroma_source, colour_shift
from .images import unit_range
from .masks import Mask
from .pair_batch import Objects, PairBatch
from .pair_source import PairSource
from .window import Window

T = TypeVar("T")


def cut_crops(
    source: PairSource,
    pairs: Sequence[int],
    crop: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] | None = None,
    upright: bool = False,
    colour: str | None = None,
    ranks: Ranks = ALONE,
) -> PairBatch:
    """Cut one random window out of each of N pairs, with its labels where the source has any.

    Args:
        crop: Height and width of the crops in pixels. Without `scale` a smaller pair makes all crops as small as its
            shorter side: nothing is resampled, and the crops of a batch have one size.
        rng: The generator that draws the windows; see `Window.draw` for `scale` and `upright`.
        colour: The source of the colours that a batch has, see `chroma_source`; None for luma alone.
        ranks: The processes that share the pairs; each draws all windows and cuts its own.
    """
    if scale is None:
        crop = min(crop, *(min(source.size(index)) for index in pairs))
    windows = [(index, Window.draw(*source.size(index), crop, rng, scale=scale, upright=upright)) for index in pairs]
    own = ranks.share(windows)
    return _batch(
        torch.stack([window.cut_images(source[index]) for index, window in own]),
        [window.cut_objects(source.objects(index)) for index, window in own] if source.labels == "boxes" else None,
        [window.cut_mask(source.mask(index)) for index, window in own] if source.labels == "masks" else None,
        None if colour is None else [window.resampled(_colour(source, index, colour, window)) for index, window in own],
    )


def whole_pair(source: PairSource, index: int, colour: str | None = None) -> PairBatch:
    """Make a batch of one whole pair, (1, 1, H, W), with its labels where the source has any; see `cut_crops`."""
    return _batch(
        torch.from_numpy(np.stack([unit_range(image) for image in source[index]]))[None],
        [source.objects(index)] if source.labels == "boxes" else None,
        [source.mask(index)] if source.labels == "masks" else None,
        None if colour is None else [_colour(source, index, colour)],
    )


def _colour(source: PairSource, index: int, colour: str, window: Window | None = None) -> Tensor:
    """Compute the colours of a pair, (3, H, W), or of the square that a window cuts out."""
    first, second = source.read(index)
    if window is not None:
        first, second = first[window.slices], second[window.slices]
    return colour_shift(first, second, chroma_source(colour, first, second)).permute(2, 0, 1)


def _batch(
    images: Tensor,
    objects: Sequence[Objects] | None,
    masks: Sequence[Mask] | None,
    colours: Sequence[Tensor] | None,
) -> PairBatch:
    """Join samples whose (N, 2, H, W) images hold the first and the second source."""
    first, second = (side.contiguous() for side in images.split(1, dim=1))
    return PairBatch(
        first,
        second,
        None if objects is None else tuple(objects),
        None if masks is None else torch.from_numpy(np.stack(masks).astype(np.int64)),
        None if colours is None else torch.stack(list(colours)).contiguous(),
    )


class BatchStream(Dataset[PairBatch]):
    """Batches of random crops, indexed by training step: item `step` is the batch of that step.

    Pairs are drawn without replacement: each epoch is a new permutation of all pairs, epochs follow each other without
    a gap, and a batch may reach over the border of two epochs. With `shares` they are drawn with replacement.

    Args:
        source: The pairs, with or without labels.
        indices: Positions in `source` to draw from, at least one.
        batch_size: Number N of pairs in a batch, a multiple of the number of `ranks`.
        crop: Height and width of the crops in pixels; see `cut_crops` for pairs that are smaller.
        seed: Chooses the order of the pairs and the crops.
        name: Name of the stream; streams with one seed and different names are independent.
        shares: Relative frequency of each of `indices`; None for all equally often, without replacement.
        scale: Smallest and largest zoom factor, or None; see `Window.draw`.
        upright: Whether crops are never turned upside down; see `Window.draw`.
        colour: The source of the colours that batches have; see `cut_crops`.
        ranks: The processes that share every batch; each gets its part of the batch that one process would get.

    Example:
        >>> from timfuse.data import SyntheticPairs
        >>> source = SyntheticPairs("multi-focus", 4, 64, seed=0)
        >>> stream = BatchStream(source, range(4), batch_size=2, crop=32, seed=0, name="train")
        >>> stream[7].first.shape, sorted(stream.pairs_of(0) + stream.pairs_of(1))
        (torch.Size([2, 1, 32, 32]), [0, 1, 2, 3])
    """

    def __init__(
        self,
        source: PairSource,
        indices: Sequence[int],
        *,
        batch_size: int,
        crop: int,
        seed: int,
        name: str,
        shares: Sequence[float] | None = None,
        scale: tuple[float, float] | None = None,
        upright: bool = False,
        colour: str | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._source, self._indices, self._batch_size, self._crop = source, tuple(indices), batch_size, crop
        self._seed, self._name = seed, name
        self._probabilities = None if shares is None else np.array(shares) / np.sum(shares)
        self._scale, self._upright, self._colour, self._ranks = scale, upright, colour, ranks

    def __getitem__(self, step: int) -> PairBatch:
        pairs, rng = self.pairs_of(step), self._rng("crops", step)
        return cut_crops(
            self._source,
            pairs,
            self._crop,
            rng,
            scale=self._scale,
            upright=self._upright,
            colour=self._colour,
            ranks=self._ranks,
        )

    def pairs_of(self, step: int) -> list[int]:
        """Return the N positions in the source of a step's pairs, for all processes together."""
        if self._probabilities is not None:
            return self._rng("order", step).choice(self._indices, self._batch_size, p=self._probabilities).tolist()
        start, count = step * self._batch_size, len(self._indices)
        epochs = [divmod(place, count) for place in range(start, start + self._batch_size)]
        orders = {epoch: self._rng("order", epoch).permutation(count) for epoch in {epoch for epoch, _ in epochs}}
        return [self._indices[orders[epoch][place]] for epoch, place in epochs]

    def _rng(self, purpose: str, number: int) -> np.random.Generator:
        """Make the generator of a purpose in a step or an epoch."""
        return np.random.default_rng(derive_seed(self._seed, self._name, purpose, number))


class _Carrier(Dataset[T | UserError]):
    """Returns a user's error as a value, since a loader's worker would wrap it in its own traceback."""

    def __init__(self, stream: Dataset[T]) -> None:
        self.stream = stream

    def __getitem__(self, step: int) -> T | UserError:
        try:
            return self.stream[step]
        except UserError as error:
            return error


def stream_batches(stream: Dataset[T], start: int, stop: int, workers: int = 0) -> Iterator[T]:
    """Yield the items of a stream for the steps `start` to `stop` (excluded).

    Args:
        stream: A data set whose item `step` is the batch of that step, such as a `BatchStream`.
        workers: Processes that prepare items ahead; 0 prepares them in this process. The items are the same.

    Raises:
        UserError: If a file of the source can no longer be read.
    """
    loader = DataLoader(
        _Carrier(stream),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        collate_fn=_as_it_is,
        # Without a generator of its own the loader would advance the global one, and a resumed run would part
        # from an uninterrupted one.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield cast(T, batch)


def _as_it_is(item: Any) -> Any:
    return item
