"""Configs of a meta-initialisation, whose shipped files are configs/meta-init*.yaml, and of an adaptation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..data.stage_config import (
    Colour,
    DataSection,
    RootSection,
    Sources,
    StageConfig,
    TaskConfig,
    WholeNumber,
    check_task,
)
from ..genotypes import TASKS
from ..objectives import training_loss
from ..objectives.loss_section import LossSection, fusion_loss
from ..runtime.config import Count, NonNegative, Positive, Section
from ..runtime.seeds import derive_seed
from .meta_tasks import Task

LEARN_RATES = ("maml", "fomaml", "anil")


class TaskSection(Section):
    """A fusion task: one of timfuse, or with `sources` any other.

    Attributes:
        root: Folder of its pairs, or a list of such folders, relative to `data.root`; null for the folder of the
            task's name.
        weight: Weight of the task in the meta-training; 0 holds it out: validations adapt to it, nothing trains on it.
        sources: Names of the first and the second source, which are also the names of their folders in `root`: for a
            task of your own, or unusual folder names.
        colour: The source whose colour the fused image keeps, "first", "second" or "both"; null for the usual one.
        loss: Weights of the terms of the fusion loss, or the name of a loss; null for the loss of the task.
    """

    root: Path | Annotated[tuple[Path, ...], Field(min_length=1)] | None = None
    weight: NonNegative = 1.0
    sources: Sources | None = None
    colour: Colour | None = None
    loss: LossSection | None = None


class EpisodeDataSection(DataSection):
    """The pairs of a meta-initialisation, and the episodes made of them.

    Attributes:
        root: Folder that holds the folders of the tasks; null for synthetic pairs of every task.
        support: Number of pairs in a support batch; each step of the adaptation takes a new crop of each.
        query: Number of pairs of each task in the batch that sets the gradient of the initial weights; none of them is
            in the support batches.
    """

    root: Path | None = None
    synthetic_pairs: Annotated[int, Field(ge=4, le=100_000)] = 48
    crop: Annotated[int, Field(ge=16)] = 128
    support: Count = 4
    query: Count = 2

    def open_task(self, name: str, section: TaskSection, seed: int, roots: Sequence[Path | None] | None = None) -> Task:
        """Open the pairs of a task; every file is read once and checked.

        Args:
            seed: Seed of the run, which decides the split and the synthetic pairs.
            roots: Folders of the pairs, which replace the folders of the section.

        Raises:
            UserError: If a folder or a file in it cannot be used.
        """
        if roots is None:
            named = section.root if isinstance(section.root, tuple) else (section.root or Path(name),)
            folder = self.root and self.root.expanduser()
            roots = [None] if folder is None else [folder / root.expanduser() for root in named]
        scenes = derive_seed(seed, "scenes", name)  # of the task's own, so that synthetic pairs of tasks differ
        pairs = self.open_pairs(name, section.sources, seed, roots=roots, synthetic_seed=scenes)
        loss = fusion_loss(section.loss, training_loss(name), self.crop)
        validation = pairs.positions("validation")
        return Task(name, section.weight, pairs.source, pairs.scene_blocks(), validation, loss)


class InnerSection(Section):
    """The adaptation to a task.

    Attributes:
        steps: Largest number K of optimiser steps in an episode. Each episode draws its number from 1 to K, so that the
            initialisation is good after every number.
        optimizer: Optimiser of the adaptation: "sgd" or "adam", or "adamw" with an algorithm that does not
            differentiate it.
        learning_rate: Learning rate of every layer at the start.
        learn_rates: Whether each layer learns its own rate (maml, fomaml and anil).
        layers: Name of the part of the network that adapts under anil.
        strength: Strength of the pull towards the initial weights under imaml.
        iterations: Largest number of Hessian products under imaml.
    """

    steps: Count = 5
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: Positive = 5e-4
    learn_rates: bool = True
    layers: str = "head"
    strength: Positive = 10.0
    iterations: Count = 5


class MetaSection(Section):
    """The training of the initial weights, by Adam.

    Attributes:
        algorithm: Either "pooled", plain training on all tasks at once, or a meta-learning algorithm, whose steps take
            one episode of each task: "maml", "fomaml", "reptile", "anil" or "imaml".
        pretrain: Steps of plain training before the episodes of a meta-learning algorithm.
        pretrain_learning_rate: Largest learning rate of the weights in plain training; in both parts it rises over the
            warm-up and then falls to a hundredth along a half cosine.
        steps: Number of steps, or with a meta-learning algorithm of steps with episodes.
        learning_rate: Largest learning rate of the weights in these steps.
        rate_learning_rate: Largest learning rate of the logarithms of the inner learning rates.
        warmup: Steps over which the learning rates rise, in each part.
        clip: Largest norm of the gradient; a longer gradient is scaled down to it.
        validate_every: Number of these steps between two validations; the training before them is validated at its end.
        checkpoint_every: Steps between two checkpoints.
    """

    scaled_by_steps: ClassVar[tuple[str, ...]] = ("pretrain", "warmup", "validate_every")

    algorithm: Literal["pooled", "maml", "fomaml", "reptile", "anil", "imaml"] = "pooled"
    pretrain: WholeNumber = 0
    pretrain_learning_rate: Positive = 2e-3
    steps: Count = 4000
    learning_rate: Positive = 2e-3
    rate_learning_rate: Positive = 2.5e-2
    warmup: WholeNumber = 50
    clip: Positive = 1.0
    validate_every: Count = 500
    checkpoint_every: Count = 100

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        shortest = min(self.steps, self.pretrain or self.steps)
        if self.warmup >= shortest:
            raise ValueError(f"must have parts longer than the warm-up: warmup {self.warmup} >= {shortest} steps")
        return self

    @property
    def all_steps(self) -> int:
        """Number of steps of both parts."""
        return self.pretrain + self.steps


def _all_tasks() -> dict[str, TaskSection | None]:
    return {name: TaskSection() for name in TASKS}


class MetaInitConfig(StageConfig):
    """One meta-initialisation.

    Attributes:
        genotype: The network: a name in the zoo, a YAML file or a run folder.
        init: Weights to start from, a safetensors file or a run folder; null for random ones.
        data: Image pairs, and the episodes that are cut from them.
        tasks: The fusion tasks to train on, by name; null leaves a task out.
        inner: Settings of the adaptation to a task.
        meta: Settings of the training of the initial weights.

    Example:
        >>> list(MetaInitConfig(tasks={"mri-ct": {}, "mri-pet": {}, "multi-focus": None}).used_tasks)
        ['mri-ct', 'mri-pet']
    """

    steps_in: ClassVar[str] = "meta"

    stage: Literal["meta-init"] = "meta-init"
    run: Path = Path("runs/meta-init")
    genotype: str = "ivif-fast"
    init: Path | None = None
    data: EpisodeDataSection = EpisodeDataSection()
    tasks: dict[str, TaskSection | None] = Field(default_factory=_all_tasks)
    inner: InnerSection = InnerSection()
    meta: MetaSection = MetaSection()

    @property
    def used_tasks(self) -> dict[str, TaskSection]:
        """The tasks that are not null."""
        return {name: task for name, task in self.tasks.items() if task is not None}

    @property
    def episode_steps(self) -> int:
        """The largest number of optimiser steps in an episode; 0 for plain training."""
        return 0 if self.meta.algorithm == "pooled" else self.inner.steps

    @property
    def adapting_part(self) -> str | None:
        """Name of the part of the network that adapts; None for all of it."""
        return self.inner.layers if self.meta.algorithm == "anil" else None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, task in self.used_tasks.items():
            check_task(name, task.sources)
        if not any(task.weight for task in self.used_tasks.values()):
            raise ValueError("must have a task with a weight above 0")
        algorithm, inner = self.meta.algorithm, self.inner
        if inner.optimizer == "adamw" and algorithm in ("maml", "anil"):
            raise ValueError(f"{algorithm} cannot differentiate inner.optimizer = adamw; use sgd or adam")
        return self


class AdaptDataSection(RootSection):
    """The pairs of an adaptation; the size of crops and synthetic pairs are as in the meta-initialisation.

    Attributes:
        pairs: Number of training pairs to adapt on, spread over the data set; 0 for all.
    """

    pairs: WholeNumber = 20


class AdaptConfig(TaskConfig):
    """One adaptation of a trained network to a fusion task.

    Attributes:
        init: Run folder of a meta-initialisation or another trained network, or the name of a shipped one; null for the
            shipped one that does best on the pairs.
        data: Image pairs of the task; a few are enough.
        loss: Weights of the terms of the fusion loss, or the name of a loss; null for the loss that the initialisation
            has for the task.
        steps: Number of optimiser steps; for more than 2,000 give the start to `timfuse train` as `init`.

    Example:
        >>> AdaptConfig(task="mri-ct", data={"pairs": 5}).steps
        100
    """

    stage: Literal["adapt"] = "adapt"
    run: Path = Path("runs/adapt")
    task: str = "infrared-visible"
    init: str | None = None
    data: AdaptDataSection = AdaptDataSection()
    loss: LossSection | None = None
    steps: Annotated[int, Field(ge=1, le=2000)] = 100
