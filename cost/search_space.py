"""The networks that a search chooses from, as plain values."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..genotypes import CellGenotype, Genotype

Choices = list[list[int]]  # for each cell and step, the index of the operator


@dataclass(frozen=True)
class SearchSpace:
    """Networks that differ in their operators: every step of every cell is one of the candidates.

    Args:
        channels: Feature maps between stem and head, even.
        cells: The kind of each cell, a key of `CELL_KINDS`.

    Example:
        >>> space = SearchSpace(4, ("successive",), 2, ("identity", "dense_k3_d1"))
        >>> space.genotype([[1, 0]]).cells
        (CellGenotype(kind='successive', operators=('dense_k3_d1', 'identity'), source=None, level=None),)
    """

    channels: int
    cells: tuple[str, ...]
    steps: int
    operators: tuple[str, ...]
    norm: str = "batch"
    stem: str = "full"
    head: str = "direct"

    def genotype(self, choices: Choices) -> Genotype:
        """Describe a network of the space; its name and task are placeholders."""
        return self._describe([[self.operators[index] for index in row] for row in choices])

    @property
    def bare(self) -> Genotype:
        """A network of the cells, each with an identity as its only operator."""
        return self._describe([["identity"]] * len(self.cells))

    def _describe(self, operators: Sequence[Sequence[str]]) -> Genotype:
        cells = tuple(CellGenotype(kind, tuple(row)) for kind, row in zip(self.cells, operators, strict=True))
        return Genotype("network", "infrared-visible", "fusion", self.channels, cells, self.norm, self.stem, self.head)
