"""The tasks of a meta-initialisation, with their pairs and losses."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..data import PairSource, RunPairs
from ..objectives import FusionLoss
from ..runtime.errors import UserError
from .meta_init_config import DataSection, TaskSection


@dataclass(frozen=True)
class Task:
    """A fusion task with its pairs.

    Attributes:
        name: Name of the task.
        weight: Weight in the meta-training; 0 holds the task out.
        source: The pairs.
        blocks: Positions in `source` of the training pairs, in blocks of pairs that look alike.
        validation: Positions of the validation pairs.
        loss: The fusion loss.
    """

    name: str
    weight: float
    source: PairSource
    blocks: tuple[tuple[int, ...], ...]
    validation: tuple[int, ...]
    loss: FusionLoss

    @property
    def training(self) -> tuple[int, ...]:
        """Positions of all training pairs."""
        return tuple(index for block in self.blocks for index in block)


def open_tasks(data: DataSection, tasks: Mapping[str, TaskSection], seed: int) -> list[Task]:
    """Open the pairs of every task; every file is read once and checked.

    Args:
        data: Where pairs come from.
        tasks: The tasks by name.
        seed: The seed of the run.

    Returns:
        The tasks, in their order.

    Raises:
        UserError: If a folder or a file in it cannot be used, or a task has too few pairs for an episode.
    """
    opened = []
    for name, section in tasks.items():
        loss = section.fusion_loss(name, data.crop)
        pairs = data.open_pairs(name, _roots(data.root, name, section), seed, section.sources)
        opened.append(task_of(name, pairs, weight=section.weight, loss=loss))
        count, wanted = len(opened[-1].training), data.support + data.query
        if count < wanted:
            raise UserError(
                f"task {name} has {count} training pairs, fewer than data.support + data.query = {wanted}; "
                "lower these or leave the task out"
            )
    return opened


def task_of(name: str, pairs: RunPairs, *, weight: float, loss: FusionLoss) -> Task:
    """Make a task of its pairs.

    Args:
        name: Name of the task.
        pairs: The pairs, of one or several data sets.
        weight: As for `Task`.
        loss: The fusion loss.

    Returns:
        The task.
    """
    return Task(name, weight, pairs.source, pairs.scene_blocks(), pairs.positions("validation"), loss)


def _roots(folder: Path | None, name: str, task: TaskSection) -> list[Path | None]:
    """List the folders of a task, which lie below the folder of all tasks."""
    if folder is None:
        return [None]
    named = task.root if isinstance(task.root, tuple) else (task.root or Path(name),)
    return [folder.expanduser() / root.expanduser() for root in named]
