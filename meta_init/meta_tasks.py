"""The tasks of a meta-initialisation, with their pairs and losses."""

from dataclasses import dataclass

from ..data import PairSource
from ..objectives import FusionLoss


@dataclass(frozen=True)
class Task:
    """A fusion task with its pairs.

    Attributes:
        weight: Weight in the meta-training; 0 holds the task out.
        source: Training and validation pairs of the task.
        blocks: Positions in `source` of the training pairs, in blocks of pairs that look alike.
        validation: Positions in `source` of the validation pairs.
    """

    name: str
    weight: float
    source: PairSource
    blocks: tuple[tuple[int, ...], ...]
    validation: tuple[int, ...]
    loss: FusionLoss

    @property
    def training(self) -> tuple[int, ...]:
        """Positions in `source` of all training pairs."""
        return tuple(index for block in self.blocks for index in block)
