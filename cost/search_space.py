"""The networks that a search chooses from, as plain values."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..genotypes import CellGenotype, Genotype

Choices = list[list[int]]  # for each cell and step, the index of the operator


@dataclass(frozen=True)
class SearchSpace:
    """Networks that differ in their operators: every step of every cell is one of the candidates.

    Args:
        channels: Feature maps between stem and head, even; of a pyramid network those of each level.
        cells: The kind of each cell, a key of `CELL_KINDS`.
        levels: The level of each cell of a pyramid network, from 0, the finest, on; empty for other networks.

    Example:
        >>> space = SearchSpace(4, ("successive",), 2, ("identity", "dense_k3_d1"))
        >>> space.genotype([[1, 0]]).cells
        (CellGenotype(kind='successive', operators=('dense_k3_d1', 'identity'), source=None, level=None),)
    """

    channels: int | tuple[int, ...]
    cells: tuple[str, ...]
    steps: int
    operators: tuple[str, ...]
    norm: str = "batch"
    stem: str = "full"
    head: str = "direct"
    levels: tuple[int, ...] = ()

    def genotype(self, choices: Choices) -> Genotype:
        """Describe a network of the space; its name and task are placeholders."""
        return self._describe([[self.operators[index] for index in row] for row in choices])

    @property
    def places(self) -> list[tuple[str, int | None]]:
        """The kind and the level of each cell: in equal ones, an operator costs the same."""
        return list(zip(self.cells, self.levels or [None] * len(self.cells), strict=True))

    @property
    def bare(self) -> Genotype:
        """A network of the cells, each with an identity as its only operator."""
        return self._describe([["identity"]] * len(self.cells))

    def _describe(self, operators: Sequence[Sequence[str]]) -> Genotype:
        levels = self.levels or [None] * len(self.cells)
        cells = tuple(
            CellGenotype(kind, tuple(row), level=level)
            for kind, level, row in zip(self.cells, levels, operators, strict=True)
        )
        network = "pyramid" if self.levels else "fusion"
        return Genotype("network", "infrared-visible", network, self.channels, cells, self.norm, self.stem, self.head)
