"""The tasks of a meta-initialisation: their pairs, read and checked, and their losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data import JoinedPairs, PairSource, hold_out, open_source, scene_blocks
from ..objectives import TASK_LOSSES, FusionLoss
from ..objectives.loss_section import fusion_loss
from ..runtime.errors import UserError
from ..runtime.seeds import derive_seed
from .meta_init_config import EpisodeDataSection, TaskSection


@dataclass(frozen=True)
class Task:
    """A fusion task with its pairs.

    Attributes:
        name: Of the task.
        weight: What it counts in the meta-training; 0 holds it out.
        source: Its pairs.
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


def open_tasks(data: EpisodeDataSection, tasks: Mapping[str, TaskSection], seed: int) -> list[Task]:
    """Check every file of every task before anything else happens, and deal out the pairs.

    Args:
        data: where pairs come from.
        tasks: by name.
        seed: the run's seed.

    Returns:
        The tasks, in their order.

    Raises:
        UserError: a folder or a file in it cannot be used, or a task has too few pairs for an episode.
    """
    opened = []
    for name, task in tasks.items():
        loss = fusion_loss(task.loss, TASK_LOSSES.get(name, FusionLoss()), data.crop)
        opened.append(
            open_task(
                name,
                _roots(data.root, name, task),
                weight=task.weight,
                loss=loss,
                sources=task.sources,
                data=data,
                seed=seed,
            )
        )
        count, wanted = len(opened[-1].training), data.support + data.query
        if count < wanted:
            raise UserError(
                f"task {name} has {count} training pairs, fewer than data.support + data.query = {wanted}; "
                "lower these or leave the task out"
            )
    return opened


def open_task(
    name: str,
    roots: Sequence[Path | None],
    *,
    weight: float,
    loss: FusionLoss,
    sources: tuple[str, str] | None,
    data: EpisodeDataSection,
    seed: int,
) -> Task:
    """Check every file of one task and deal out its pairs.

    Args:
        name: of the task.
        roots: its folders; None for synthetic pairs.
        weight: what it counts.
        loss: its fusion loss.
        sources: names of the folders of a task of the user's own.
        data: size of crops and of the synthetic set, fraction for validation, cache.
        seed: the run's seed.

    Returns:
        The task.

    Raises:
        UserError: a folder or a file in it cannot be used.
    """
    opened: list[PairSource] = []
    blocks: list[tuple[int, ...]] = []
    validation: list[int] = []
    for root in roots:
        source = open_source(
            root,
            task=name,
            folders=sources,
            minimum_size=data.crop,
            synthetic_pairs=data.synthetic_pairs,
            seed=derive_seed(seed, "scenes", name) if root is None else seed,
            cache_megabytes=data.cache_megabytes,
        )
        training, held_out = hold_out(source.names, seed=seed, folder=root, validation=data.validation)
        start = sum(map(len, opened))
        for block in scene_blocks([source.names[index] for index in training]):
            blocks.append(tuple(start + training[place] for place in block))
        validation += [start + index for index in held_out]
        opened.append(source)
    return Task(name, weight, JoinedPairs(opened), tuple(blocks), tuple(validation), loss)


def _roots(folder: Path | None, name: str, task: TaskSection) -> list[Path | None]:
    """Find the folders of a task below that of all tasks."""
    if folder is None:
        return [None]
    named = task.root if isinstance(task.root, tuple) else (task.root or Path(name),)
    return [folder.expanduser() / root.expanduser() for root in named]
