"""The tasks of a meta-initialisation, with their pairs and losses."""

from dataclasses import dataclass

from ..data import PairSource, RunPairs
from ..objectives import FusionLoss


@dataclass(frozen=True)
class Task:
    """A fusion task with its pairs.

    Attributes:
        name: Name of the task.
        weight: Weight in the meta-training; 0 holds the task out.
        source: The pairs.
        blocks: Positions in `source` of the training pairs, in blocks of pairs that look alike.
        validation: Positions in `source` of the validation pairs.
        loss: The fusion loss.
    """

    name: str
    weight: float
    source: PairSource
    blocks: tuple[tuple[int, ...], ...]
    validation: tuple[int, ...]
    loss: FusionLoss

    @classmethod
    def of(cls, name: str, pairs: RunPairs, *, weight: float, loss: FusionLoss) -> "Task":
        """Make a task of its pairs.

        Args:
            name: Name of the task.
            pairs: The pairs, of one or several data sets.
            weight: Weight in the meta-training; 0 holds the task out.
            loss: The fusion loss.
        """
        return cls(name, weight, pairs.source, pairs.scene_blocks(), pairs.positions("validation"), loss)

    @property
    def training(self) -> tuple[int, ...]:
        """Positions of all training pairs."""
        return tuple(index for block in self.blocks for index in block)
