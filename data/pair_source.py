"""Sources of pairs: what batches are cut from, and several sources as one."""

from collections.abc import Sequence
from typing import Literal, Protocol

from .fingerprint import fingerprint
from .images import Pixels
from .masks import Mask
from .pair_batch import Objects

Labels = Literal["boxes", "masks"]


class PairSource(Protocol):
    """Aligned pairs of integer luma images by position, with or without labels.

    Example:
        >>> from timfuse.data import SyntheticPairs
        >>> source: PairSource = SyntheticPairs("infrared-visible", 4, 64, seed=0, labels="boxes")
        >>> source.names[3], source.size(3), source.classes
        ('scene_00003', (64, 64), ('person', 'bicycle', 'car'))
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each pair."""

    @property
    def labels(self) -> Labels | None:
        """The kind of labels that every pair has; None if the pairs have none."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the labels refer to; empty if there are no labels."""

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Names of the data set's further pairs, which have no label and are not in the source."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]: ...  # two (H, W) arrays, uint8 or uint16

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        """Return a pair with its colours, (H, W) or (H, W, 3)."""

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair without reading it."""

    def objects(self, index: int) -> Objects:
        """Return the objects of a pair; only for `labels` = "boxes"."""

    def mask(self, index: int) -> Mask:
        """Return the (H, W) class mask of a pair; only for `labels` = "masks"."""

    def fingerprint(self) -> str:
        """Name the source by its content, the same on every machine."""


class JoinedPairs:
    """Several sources as one: their pairs follow each other.

    Args:
        sources: One or more sources with the same kind of labels and the same classes.
    """

    def __init__(self, sources: Sequence[PairSource]) -> None:
        self.names = tuple(name for source in sources for name in source.names)
        self.labels, self.classes = sources[0].labels, sources[0].classes
        self.unlabelled = tuple(name for source in sources for name in source.unlabelled)
        self._sources = tuple(sources)
        self._places = [(source, index) for source in sources for index in range(len(source))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        source, place = self._places[index]
        return source[place]

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        """Return a pair with its colours."""
        source, place = self._places[index]
        return source.read(place)

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair."""
        source, place = self._places[index]
        return source.size(place)

    def objects(self, index: int) -> Objects:
        """Return the objects of a pair."""
        source, place = self._places[index]
        return source.objects(place)

    def mask(self, index: int) -> Mask:
        """Return the (H, W) class mask of a pair."""
        source, place = self._places[index]
        return source.mask(place)

    def fingerprint(self) -> str:
        """Name the pairs by their content."""
        return fingerprint(source.fingerprint() for source in self._sources)
