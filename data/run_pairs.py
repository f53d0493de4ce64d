"""The pairs of a run: one or several data sets, each split into parts, mixed for training and apart for validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import torch

from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import UserError
from .batch_stream import BatchStream, stream_batches, whole_pair
from .fingerprint import fingerprint
from .folder_pairs import FolderPairs
from .pair_batch import PairBatch
from .pair_source import JoinedPairs, Labels, PairSource
from .sources import open_source
from .splits import Split, scene_blocks, split_pairs, spread

Part = Literal["training", "architecture", "validation"]


@dataclass(frozen=True)
class PairSet:
    """The pairs of one data set.

    Attributes:
        split: The positions in `source` of each part.
    """

    name: str
    source: PairSource
    split: Split

    def validation_pairs(
        self, device: torch.device | str, colour: str | None = None
    ) -> Iterator[tuple[str, PairBatch]]:
        """Yield the name of each validation pair, and the whole pair as a batch of one on a device; see `cut_crops`."""
        for index in self.split.validation:
            yield f"{self.name}/{self.source.names[index]}", whole_pair(self.source, index, colour).to(device)


@dataclass(frozen=True)
class RunPairs:
    """The pairs of a run; positions are those in all data sets together.

    Attributes:
        sets: The data sets, at least one.
        shares: Relative frequency of the pairs of each data set in batches.

    Example:
        >>> pairs = open_pairs([None], task="mri-ct", synthetic_pairs=10, validation=0.2)
        >>> len(pairs.source), len(pairs.positions("training")), len(pairs.positions("validation"))
        (10, 8, 2)
        >>> for batch in pairs.batches("train", 0, 3, batch_size=4, crop=32, seed=0):
        ...     assert batch.first.shape == (4, 1, 32, 32)
    """

    sets: tuple[PairSet, ...]
    shares: tuple[float, ...]

    @cached_property
    def source(self) -> PairSource:
        """The pairs of all data sets."""
        return JoinedPairs([each.source for each in self.sets])

    @property
    def described(self) -> dict[str, object]:
        """The numbers of pairs of each part, and how images were stretched, for a genotype's provenance."""
        parts: dict[str, object] = {f"{part}_pairs": len(self.positions(part)) for part in get_args(Part)}
        stretches = {
            f"{each.name}, {source}": list(stretch)
            for each in self.sets
            if isinstance(each.source, FolderPairs)
            for source, stretch in zip(("first", "second"), each.source.pairs[0].stretches, strict=True)
            if stretch
        }
        return {name: entry for name, entry in (parts | {"stretch": stretches}).items() if entry}

    def positions(self, part: Part) -> tuple[int, ...]:
        """Return the positions of a part's pairs."""
        return tuple(index for positions in self._positions(part) for index in positions)

    def scene_blocks(self) -> tuple[tuple[int, ...], ...]:
        """Group the positions of the training pairs that look alike; see `splits.scene_blocks`."""
        return tuple(
            tuple(positions[place] for place in block)
            for positions in self._positions("training")
            for block in scene_blocks([self.source.names[index] for index in positions])
        )

    def batches(
        self,
        name: str,
        start: int,
        stop: int,
        *,
        part: Part = "training",
        batch_size: int,
        crop: int,
        seed: int,
        scale: tuple[float, float] | None = None,
        upright: bool = False,
        colour: str | None = None,
        workers: int = 0,
        device: torch.device | str = "cpu",
        ranks: Ranks = ALONE,
    ) -> Iterator[PairBatch]:
        """Yield the batches of the steps `start` to `stop` (excluded).

        Args:
            name: Name of the stream; the arguments that are not listed belong to `BatchStream` and `stream_batches`.
        """
        parts = self._positions(part)
        shares = [share / len(each) for share, each in zip(self.shares, parts, strict=True) for _ in each]
        stream = BatchStream(
            self.source,
            self.positions(part),
            batch_size=batch_size,
            crop=crop,
            seed=seed,
            name=name,
            shares=shares if len(parts) > 1 else None,
            scale=scale,
            upright=upright,
            colour=colour,
            ranks=ranks,
        )
        return (batch.to(device) for batch in stream_batches(stream, start, stop, workers))

    def fingerprint(self) -> str:
        """Name the pairs, and the part that each is in, by their content."""
        return fingerprint((each.source.fingerprint(), each.split) for each in self.sets)

    def _positions(self, part: Part) -> list[list[int]]:
        """List the positions of a part's pairs for each data set."""
        positions, start = [], 0
        for each in self.sets:
            positions.append([start + index for index in getattr(each.split, part)])
            start += len(each.source)
        return positions


def open_pairs(
    roots: Sequence[Path | None],
    *,
    task: str,
    folders: tuple[str, str] | None = None,
    labels: Labels | None = None,
    stretch: bool = False,
    minimum_size: int = 32,
    synthetic_pairs: int = 96,
    seed: int = 0,
    synthetic_seed: int | None = None,
    validation: float = 0.1,
    validation_pairs: int | None = None,
    architecture: float | None = None,
    shares: Sequence[float] | None = None,
    cache_megabytes: int = 2048,
) -> RunPairs:
    """Open the pairs of a run and split each data set into its parts; every file is read once and checked.

    The arguments that are not listed belong to `open_source` and `split_pairs`.

    Args:
        roots: Folders of the data sets, at least one, each once; None for synthetic pairs.
        seed: Chooses the parts, and the synthetic pairs.
        synthetic_seed: Chooses the synthetic pairs instead of `seed`.
        validation_pairs: Largest number of validation pairs of each data set, spread over its list; None for all.
        shares: Relative frequency of the pairs of each data set in batches; None for all data sets equally often.
        cache_megabytes: Memory for the decoded pairs of each data set; the others are read again when needed.

    Raises:
        UserError: If a folder or a file in it cannot be used, there are too few pairs, or the labels of two data sets
            refer to different classes.

    Example:
        >>> pairs = open_pairs([None], task="infrared-visible", labels="masks", synthetic_pairs=8, architecture=0.5)
        >>> [len(part) for part in pairs.sets[0].split], pairs.source.classes
        ([3, 4, 1], ('background', 'person', 'bicycle', 'car'))
    """
    roots = [root and root.expanduser() for root in roots]
    sets = []
    for root, name in zip(roots, _names(roots), strict=True):
        source = open_source(
            root,
            task=task,
            folders=folders,
            labels=labels,
            stretch=stretch,
            minimum_size=minimum_size,
            synthetic_pairs=synthetic_pairs,
            seed=seed if synthetic_seed is None else synthetic_seed,
            cache_megabytes=cache_megabytes,
        )
        split = split_pairs(
            source.names,
            seed=seed,
            folder=root,
            validation=validation,
            architecture=architecture,
            unlabelled=source.unlabelled,
        )
        if validation_pairs is not None:
            split = split._replace(validation=spread(split.validation, validation_pairs))
        sets.append(PairSet(name, source, split))
    first = sets[0]
    for other in sets[1:]:
        if other.source.classes != first.source.classes:
            raise UserError(
                f"{first.name} has the classes {', '.join(first.source.classes)}, and {other.name} has"
                f" {', '.join(other.source.classes)}; give data sets with the same classes"
            )
    return RunPairs(tuple(sets), tuple(shares or [1.0] * len(sets)))


def _names(roots: Sequence[Path | None]) -> list[str]:
    """Name each data set by its folder; by its whole path where two folders have one name."""
    names = ["synthetic" if root is None else root.resolve().name for root in roots]
    return [name if names.count(name) == 1 else str(root) for name, root in zip(names, roots, strict=True)]
