"""The endless stream of training batches: every batch is a function of the seed and its step alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import UserError
from ..runtime.seeds import derive_seed
from .fingerprint import fingerprint
from .images import Pixels, unit_range

T = TypeVar("T")


class PairSource(Protocol):
    """What a stream draws from: aligned pairs of integer luma images, by position."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]: ...  # two (H, W) arrays, uint8 or uint16

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair without reading it."""

    def fingerprint(self) -> str:
        """Tell this source from those that hold anything else; the same on every machine."""


class PairBatch(NamedTuple):
    """A batch of aligned luma crops in [0, 1]."""

    first: Tensor  # (N, 1, H, W) float32
    second: Tensor  # (N, 1, H, W) float32

    def to(self, device: torch.device | str) -> "PairBatch":
        """Move both sources to a device."""
        return PairBatch(self.first.to(device), self.second.to(device))


@dataclass(frozen=True)
class Window:
    """One random square of an image, perhaps mirrored: everything geometric about a training sample."""

    top: int
    left: int
    size: int
    horizontal_flip: bool
    vertical_flip: bool

    @classmethod
    def draw(cls, height: int, width: int, size: int, rng: np.random.Generator) -> "Window":
        """Draw a window of `size` pixels squared uniformly from an image of at least that size."""
        top, left = rng.integers(height - size, endpoint=True), rng.integers(width - size, endpoint=True)
        horizontal, vertical = rng.integers(2, size=2)
        return cls(int(top), int(left), size, bool(horizontal), bool(vertical))

    def cut(self, image: Pixels) -> Pixels:
        """Cut the window out of an (H, W) image."""
        rows = slice(None, None, -1 if self.vertical_flip else 1)
        columns = slice(None, None, -1 if self.horizontal_flip else 1)
        return image[self.top : self.top + self.size, self.left : self.left + self.size][rows, columns]


def cut_crops(
    source: PairSource, pairs: Sequence[int], crop: int, rng: np.random.Generator, ranks: Ranks = ALONE
) -> PairBatch:
    """Cut one random window out of each pair.

    Args:
        source: Holds the pairs.
        pairs: Their positions, N.
        crop: Height and width of the windows in pixels; no image may be smaller.
        rng: Draws the windows.
        ranks: The processes that share the pairs; each draws all windows and cuts its own.

    Returns:
        The batch, in the order of `pairs`.
    """
    windows = [(index, Window.draw(*source.size(index), crop, rng)) for index in pairs]
    crops: list[list[NDArray[np.float32]]] = [[], []]
    for index, window in ranks.share(windows):
        for side, image in zip(crops, source[index], strict=True):
            side.append(unit_range(window.cut(image)))
    first, second = (torch.from_numpy(np.stack(side)).unsqueeze(1) for side in crops)
    return PairBatch(first, second)


class JoinedPairs:
    """Several sources as one, their pairs one source after the other.

    Args:
        sources: The sources, at least one.
    """

    def __init__(self, sources: Sequence[PairSource]) -> None:
        self.names = tuple(name for source in sources for name in source.names)
        self._sources = tuple(sources)
        self._places = [(source, index) for source in sources for index in range(len(source))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        source, place = self._places[index]
        return source[place]

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair."""
        source, place = self._places[index]
        return source.size(place)

    def fingerprint(self) -> str:
        """Tell these pairs from all others."""
        return fingerprint(source.fingerprint() for source in self._sources)


class PairOrder:
    """Which pairs come in which step, and the generators of a stream: functions of its seed and name alone.

    Pairs are drawn without replacement: each epoch is a new permutation of all pairs, epochs follow each
    other without a gap, and a batch may reach over the border of two. With `shares` they are drawn with
    replacement instead.

    Args:
        indices: The positions to draw from, at least one.
        batch_size: N, pairs in a batch.
        seed: The run's seed.
        name: Name of the stream; streams of one seed and different names are independent.
        shares: How often each of `indices` comes, relative to the others; None for all equally often.
    """

    def __init__(
        self, indices: Sequence[int], *, batch_size: int, seed: int, name: str, shares: Sequence[float] | None = None
    ) -> None:
        self._indices, self._batch_size = tuple(indices), batch_size
        self._seed, self._name = seed, name
        self._probabilities = None if shares is None else np.array(shares) / np.sum(shares)

    def pairs_of(self, step: int) -> list[int]:
        """Return the N positions of a step's batch."""
        if self._probabilities is not None:
            return self.rng("order", step).choice(self._indices, self._batch_size, p=self._probabilities).tolist()
        start, count = step * self._batch_size, len(self._indices)
        epochs = [divmod(place, count) for place in range(start, start + self._batch_size)]
        orders = {epoch: self.rng("order", epoch).permutation(count) for epoch in {epoch for epoch, _ in epochs}}
        return [self._indices[orders[epoch][place]] for epoch, place in epochs]

    def rng(self, purpose: str, number: int) -> np.random.Generator:
        """Return the generator of a purpose, such as the crops, in a step or an epoch."""
        return np.random.default_rng(derive_seed(self._seed, self._name, purpose, number))


class CropStream(Dataset[PairBatch]):
    """Batches of random crops, indexed by training step: item `step` is the batch of that step.

    Of several processes each gets its own part of the batch that one alone would get. The order of the pairs is that of
    `PairOrder`.

    Args:
        source: Where pairs come from.
        indices: The positions in `source` to draw from, at least one.
        batch_size: N, pairs in a batch, a multiple of the number of `ranks`.
        crop: Height and width of the crops in pixels; no image of the source may be smaller.
        seed: The run's seed.
        name: Name of the stream; streams of one seed and different names are independent.
        shares: How often each of `indices` comes, relative to the others; None for all equally often.
        ranks: The processes that share every batch.
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
        ranks: Ranks = ALONE,
    ) -> None:
        self.source = source
        self.indices = tuple(indices)
        self.batch_size = batch_size
        self.crop = crop
        self.ranks = ranks
        self._order = PairOrder(indices, batch_size=batch_size, seed=seed, name=name, shares=shares)

    def pairs_of(self, step: int) -> list[int]:
        """Return the positions in `source` of the pairs in a step's batch."""
        return self._order.pairs_of(step)

    def __getitem__(self, step: int) -> PairBatch:
        return cut_crops(self.source, self.pairs_of(step), self.crop, self._order.rng("crops", step), self.ranks)


class _Carrier(Dataset[T | UserError]):
    """Hands a user's error over as a value, since a loader's worker would wrap it in its own traceback."""

    def __init__(self, stream: Dataset[T]) -> None:
        self.stream = stream

    def __getitem__(self, step: int) -> T | UserError:
        try:
            return self.stream[step]
        except UserError as error:
            return error


def stream_batches(stream: Dataset[T], start: int, stop: int, workers: int = 0) -> Iterator[T]:
    """Yield the batches of steps `start` to `stop` (excluded); the number of workers changes the speed alone.

    Args:
        stream: Its item `step` is what a step needs, as in `CropStream`.
        start: The first step; a resumed run passes the step it stopped at.
        stop: The step after the last.
        workers: Processes that prepare batches ahead; 0 prepares them here.

    Yields:
        The batch of each step, in order.

    Raises:
        UserError: If a file of the source cannot be read any more.
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
