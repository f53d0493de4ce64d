"""The networks that a search chooses from, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from ..genotypes import CellGenotype, Genotype

LevelWidths = tuple[tuple[int, ...], ...]  # of each level, the numbers of feature maps to choose from


class Choices(NamedTuple):
    """One network of a search space.

    Attributes:
        operators: For each cell and step, the index of the operator.
        widths: For each level whose width is searched, the index of its number of feature maps.

    Example:
        >>> SearchSpace((4,), ("stage",), 1, ("identity", "plain_k3"), "none", "half", "bands", (0,)).genotype(
        ...     Choices([[1]])
        ... ).cells[0].operators
        ('plain_k3',)
    """

    operators: list[list[int]]
    widths: tuple[int, ...] = ()


class Decisions(NamedTuple):
    """A number for each candidate of each decision of a search: a logit or a probability.

    Attributes:
        operators: Of the operators, (cells, steps, candidates).
        widths: Of the numbers of feature maps, (levels, options); None where they are fixed.

    Example:
        >>> import torch
        >>> [tuple(numbers.shape) for numbers in Decisions(torch.zeros(4, 3, 7), torch.zeros(4, 4)).tensors]
        [(4, 3, 7), (4, 4)]
    """

    operators: Tensor
    widths: Tensor | None = None

    def detach(self) -> "Decisions":
        """Return the same numbers without a graph."""
        return Decisions(self.operators.detach(), None if self.widths is None else self.widths.detach())

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that are there."""
        return [numbers for numbers in self if numbers is not None]


@dataclass(frozen=True)
class SearchSpace:
    """Networks that differ in their operators, and perhaps in their widths.

    Every step of every cell is one of the candidates, and in a space with a list of numbers for each level, every level
    has one of these widths.

    Args:
        channels: Feature maps between stem and head, even; of a pyramid network those of each level, or for each level
            equally many numbers in rising order to choose from, of which the first of the finest level may be 0.
        cells: The kind of each cell, a key of `CELL_KINDS`.
        levels: The level of each cell of a pyramid network, from 0, the finest, on; empty for other networks.
        sources: The branch of each cell of a refine network, all "first" before all "second"; empty for other networks.
        merge: Merge of the branches of a refine network, "gated" or "concat"; None for other networks.

    Example:
        >>> space = SearchSpace(4, ("successive",), 2, ("identity", "dense_k3_d1"))
        >>> space.genotype(Choices([[1, 0]])).cells
        (CellGenotype(kind='successive', operators=('dense_k3_d1', 'identity'), source=None, level=None),)
    """

    channels: int | tuple[int, ...] | LevelWidths
    cells: tuple[str, ...]
    steps: int
    operators: tuple[str, ...]
    norm: str = "batch"
    stem: str = "full"
    head: str = "direct"
    levels: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    merge: str | None = None

    @property
    def width_options(self) -> LevelWidths:
        """The widths to choose from at each level; empty where they are fixed."""
        if isinstance(self.channels, int):
            return ()
        return tuple(options for options in self.channels if isinstance(options, tuple))

    @property
    def largest(self) -> int | tuple[int, ...]:
        """The widths of the largest network."""
        return tuple(map(max, self.width_options)) or self.channels  # type: ignore[return-value]

    def genotype(self, choices: Choices) -> Genotype:
        """Describe a network of the space; its name and task are placeholders.

        A stage names its blocks only, so that networks that differ in the place of an identity are one; it has an
        identity where it has no block. A level without feature maps has no cells.
        """
        names = [[self.operators[index] for index in row] for row in choices.operators]
        options = self.width_options
        widths = tuple(widths[index] for widths, index in zip(options, choices.widths, strict=bool(options)))
        return self._describe(names, widths or self.largest)

    def choices(self, described: Mapping[str, Any]) -> Choices:
        """Return the choices that `genotype` describes as these widths and operators, up to the places of identities.

        Args:
            described: Under "channels" the widths, and under "operators" the names of the operators of each cell.

        Raises:
            ValueError: If no network of the space is described so.

        Example:
            >>> space = SearchSpace(4, ("successive",), 2, ("identity", "dense_k3_d1"))
            >>> space.choices({"channels": 4, "operators": [["dense_k3_d1", "identity"]]})
            Choices(operators=[[1, 0]], widths=())
        """
        options, channels = self.width_options, described["channels"]
        if not options and channels != (list(self.channels) if isinstance(self.channels, tuple) else self.channels):
            raise ValueError(f"the space has no network with the widths {channels}")
        widths = tuple(
            of_level.index(width) for of_level, width in zip(options, channels if options else (), strict=True)
        )
        present = [level is None or not options or options[level][widths[level]] > 0 for _, level in self.places]
        if len(described["operators"]) != sum(present):
            raise ValueError(f"the space has no network of {len(described['operators'])} cells with these widths")
        rows = iter(described["operators"])
        operators = []
        for there in present:
            row = [self.operators.index(name) for name in next(rows)] if there else []
            if len(row) > self.steps or (len(row) < self.steps and there and "identity" not in self.operators):
                raise ValueError(f"the space has no cell of {len(row)} operators")
            operators.append(row + [self._idle] * (self.steps - len(row)))
        return Choices(operators, widths)

    @property
    def _idle(self) -> int:
        """The index of the identity, or of any operator where a stage cannot be without."""
        return self.operators.index("identity") if "identity" in self.operators else 0

    @property
    def places(self) -> list[tuple[str, int | None]]:
        """The kind and the level of each cell: in equal ones, an operator costs the same."""
        return list(zip(self.cells, self.levels or [None] * len(self.cells), strict=True))

    def bare(self, widths: tuple[int, ...] | None = None) -> Genotype:
        """Describe a network of the cells, each with an identity as its only operator.

        Args:
            widths: Its widths; None for those of the largest network.
        """
        return self._describe([["identity"]] * len(self.cells), widths or self.largest)

    def _describe(self, operators: Sequence[Sequence[str]], widths: int | tuple[int, ...]) -> Genotype:
        sources = self.sources or [None] * len(self.cells)
        cells = tuple(
            CellGenotype(kind, _blocks(row) if kind == "stage" else tuple(row), source, level)
            for (kind, level), source, row in zip(self.places, sources, operators, strict=True)
            if level is None or isinstance(widths, int) or widths[level]
        )
        network = "pyramid" if self.levels else "refine" if self.sources else "fusion"
        parts = self.norm, self.stem, self.head, self.merge
        return Genotype("network", "infrared-visible", network, widths, cells, *parts)


def _blocks(operators: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in operators if name != "identity") or ("identity",)
