"""What a user can set for a meta-initialisation and an adaptation; configs/meta-init*.yaml are instances of it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..data import RunPairs, open_pairs
from ..data.pairs_section import Roots
from ..genotypes import TASKS
from ..genotypes.choices import nearest
from ..genotypes.genotype import TASK_NAME
from ..objectives import TASK_LOSSES, FusionLoss
from ..objectives.loss_section import LossSection
from ..runtime.config import Count, Fraction, NonNegative, Positive, Section
from ..runtime.seeds import derive_seed

LEARN_RATES = ("maml", "fomaml", "anil")


class TaskSection(Section):
    """A fusion task: one of timfuse's own, or with `sources` any other.

    Attributes:
        root: Folder of the pairs, or a list of such folders, relative to `data.root`; None for the folder of the
            task's name.
        weight: what it counts; 0 holds it out: adapted to in validations, never trained on.
        sources: for a task of your own, or unusual folders: names of the first and the second source, which are also
            those of their folders in `root`.
        colour: for a task of your own: the source whose colour the fused image keeps, "first", "second" or "both".
        loss: weights of the terms of the fusion loss; None for the task's own.
    """

    root: Roots = None
    weight: NonNegative = 1.0
    sources: tuple[str, str] | None = None
    colour: Literal["first", "second", "both"] | None = None
    loss: LossSection | None = None

    def fusion_loss(self, name: str, crop: int) -> FusionLoss:
        """Make the loss of the task of this name for crops of a size, in pixels."""
        section = self.loss or LossSection(**asdict(TASK_LOSSES.get(name, FusionLoss())))
        return section.loss(crop)


class DataSection(Section):
    """Where pairs come from and how episodes are made of them.

    Attributes:
        root: Folder that holds the folders of the tasks; None for synthetic pairs of every task.
        synthetic_pairs: Number of pairs to render for each task where `root` is None.
        crop: Height and width of the crops in pixels; they are mirrored at random.
        support: Pairs in a support batch; every step of the adaptation takes a new crop of each.
        query: Pairs in the query batch; none of them is in the support batches.
        validation: Fraction of a folder's pairs for validation, where it has no train.txt and val.txt.
        workers: Processes that prepare episodes; changes nothing but the speed.
        cache_megabytes: Memory for the decoded pairs of each folder; the others are read again when needed.
    """

    root: Path | None = None
    synthetic_pairs: Annotated[int, Field(ge=4)] = 48
    crop: Annotated[int, Field(ge=16)] = 64
    support: Count = 4
    query: Count = 4
    validation: Fraction = 0.1
    workers: Annotated[int, Field(ge=0)] = 0
    cache_megabytes: Annotated[int, Field(ge=0)] = 2048

    def open_pairs(
        self, task: str, roots: Sequence[Path | None], seed: int, folders: tuple[str, str] | None
    ) -> RunPairs:
        """Open the pairs of a task in these folders; see `data.open_pairs`."""
        return open_pairs(
            roots,
            task=task,
            folders=folders,
            minimum_size=self.crop,
            synthetic_pairs=self.synthetic_pairs,
            seed=seed,
            synthetic_seed=derive_seed(seed, "scenes", task),
            validation=self.validation,
            cache_megabytes=self.cache_megabytes,
        )


class InnerSection(Section):
    """The adaptation to a task.

    Attributes:
        steps: K, most optimiser steps in an episode, each of which draws its number of them from 1 to K, so that the
            initialisation is good after every number; 0 for plain training on all tasks at once throughout.
        optimizer: "sgd" or "adam"; for algorithms without second derivatives also "adamw".
        learning_rate: of every layer, to begin with.
        learn_rates: whether each layer learns its own rate (maml, fomaml and anil).
        layers: name of the part of the network that adapts under anil.
        strength: of the pull towards the initial weights under imaml.
        iterations: most Hessian products under imaml.
    """

    steps: Annotated[int, Field(ge=0)] = 5
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: Positive = 7e-4
    learn_rates: bool = True
    layers: str = "head"
    strength: Positive = 10.0
    iterations: Count = 5


class MetaSection(Section):
    """The training of the initial weights, by Adam; every step takes one episode of each task.

    Attributes:
        algorithm: "maml", "fomaml", "reptile", "anil" or "imaml".
        pretrain: steps of plain training on all tasks at once, before those with episodes; each is one pass for a task.
        pretrain_learning_rate: the largest in that part, of the weights; in either part it rises over the warm-up and
            falls to a hundredth along a half cosine.
        steps: how many with episodes.
        learning_rate: the largest in that part, of the weights.
        rate_learning_rate: the largest of the logarithms of the inner learning rates.
        warmup: steps over which the learning rates rise.
        clip: largest norm of the gradient.
        validate_every: steps with episodes between two validations; plain training is validated at its end.
        checkpoint_every: steps between two checkpoints.
    """

    algorithm: Literal["maml", "fomaml", "reptile", "anil", "imaml"] = "fomaml"
    pretrain: Annotated[int, Field(ge=0)] = 6100
    pretrain_learning_rate: Positive = 4e-3
    steps: Count = 500
    learning_rate: Positive = 1.5e-3
    rate_learning_rate: Positive = 2.5e-2
    warmup: Annotated[int, Field(ge=0)] = 50
    clip: Positive = 1.0
    validate_every: Count = 50
    checkpoint_every: Count = 100

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        shortest = min(self.steps, self.pretrain or self.steps)
        if self.warmup >= shortest:
            raise ValueError(f"must have parts longer than the warm-up: warmup {self.warmup} >= {shortest} steps")
        return self

    @property
    def all_steps(self) -> int:
        """The steps of both parts."""
        return self.pretrain + self.steps


def _own_tasks() -> dict[str, TaskSection | None]:
    return {name: TaskSection(weight=0.0 if name == "multi-focus" else 1.0) for name in TASKS}


class MetaInitConfig(Section):
    """One meta-initialisation.

    Attributes:
        run: the run folder.
        seed: of everything random.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        genotype: the network: a name in the zoo, a YAML file or a run folder.
        init: weights to start from, a safetensors file or a run folder; None for fresh ones.
        data: where pairs come from.
        tasks: by name, what is trained on; null leaves a task out.
        inner: the adaptation to a task.
        meta: the training.
    """

    run: Path = Path("runs/meta-init")
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    genotype: str = "ivif-fast"
    init: Path | None = None
    data: DataSection = DataSection()
    tasks: dict[str, TaskSection | None] = Field(default_factory=_own_tasks)
    inner: InnerSection = InnerSection()
    meta: MetaSection = MetaSection()

    @property
    def used_tasks(self) -> dict[str, TaskSection]:
        """The tasks that are not null."""
        return {name: task for name, task in self.tasks.items() if task is not None}

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


class AdaptConfig(Section):
    """One adaptation of an initialisation to a task.

    Attributes:
        run: the folder of the adapted network.
        seed: of everything random.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        init: the run folder of a meta-initialisation, or the name of one that comes with timfuse.
        task: name of the task: one of timfuse's own, one that the initialisation was trained on, or with `sources` any.
        data: Folder of its pairs, or a list of such folders; None for synthetic pairs.
        sources: as in `TaskSection`; None for what the initialisation knows of the task.
        colour: likewise.
        loss: likewise.
        steps: optimiser steps; for more than 2,000 give the initialisation to `timfuse train` as its `init`.
        pairs: how many training pairs to adapt on, spread over the data set; 0 for all.
    """

    run: Path
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    init: str
    task: str
    data: Roots = None
    sources: tuple[str, str] | None = None
    colour: Literal["first", "second", "both"] | None = None
    loss: LossSection | None = None
    steps: Annotated[int, Field(ge=1, le=2000)] = 20
    pairs: Annotated[int, Field(ge=0)] = 8


def check_task(name: str, sources: tuple[str, str] | None) -> None:
    """Refuse a task that is neither timfuse's own nor described.

    Args:
        name: Of the task.
        sources: Names of its sources, needed for a task of the user's own.

    Raises:
        ValueError: If the task is not known or its name cannot name a folder.
    """
    if sources is None and name not in TASKS:
        raise ValueError(
            f"unknown task {name!r}{nearest(name, TASKS)}: use {', '.join(TASKS)}, or name the sources of your own"
        )
    if not TASK_NAME.fullmatch(name):
        raise ValueError(f"a task's name must be of up to 40 letters, digits, '-', '_' and '.', not {name!r}")
