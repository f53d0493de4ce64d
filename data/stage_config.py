"""Config keys that the stages share: the run, the fusion task and the pairs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import AfterValidator, Field, model_validator

from .. import __version__
from ..genotypes import TASKS, Genotype, Provenance
from ..genotypes.choices import nearest
from ..genotypes.genotype import TASK_NAME
from ..runtime.config import Count, Fraction, Positive, Section, config_hash
from .run_pairs import RunPairs, open_pairs

WholeNumber = Annotated[int, Field(ge=0)]
Colour = Literal["first", "second", "both"]
Sources = tuple[str, str]

ALWAYS_ENOUGH = 64  # pixels: the height and width of images on which every fusion loss is defined


def _ordered(scale: tuple[float, float]) -> tuple[float, float]:
    if scale[0] > scale[1]:
        raise ValueError(f"must have the smaller factor first: {scale[0]:g} > {scale[1]:g}")
    return scale


Scale = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]


class RootSection(Section):
    """Where pairs come from.

    Attributes:
        root: Folder of a data set, or a list of such folders to mix; null for synthetic pairs of the task.
        stretch: Whether images of sensor counts or temperatures are stretched to the full 16 bits, from the 0.1th to
            the 99.9th percentile of all images of the source in the folder; otherwise they are refused.
    """

    root: Path | Annotated[tuple[Path, ...], Field(min_length=1)] | None = None
    stretch: bool = False

    @property
    def roots(self) -> tuple[Path | None, ...]:
        """The folders; one None for synthetic pairs."""
        roots = self.root if isinstance(self.root, tuple) else (self.root,)
        return tuple(root and root.expanduser() for root in roots)

    @property
    def origin(self) -> list[str] | str:
        """What a genotype's provenance says of where the pairs come from."""
        return [str(root) for root in self.roots if root] or "synthetic pairs"

    @model_validator(mode="after")
    def _each_folder_once(self) -> Self:
        if len(set(self.roots)) != len(self.roots):
            raise ValueError("must name each folder of data.root once")
        return self


class PairsSection(RootSection):
    """The pairs of a run.

    Attributes:
        synthetic_pairs: Number of synthetic pairs where `root` is null.
        validation: Fraction of a folder's pairs that is held out for validation, where the folder has no train.txt
            and val.txt.
        workers: Processes that prepare batches ahead; 0 prepares them in the main process. The result is the same.
        cache_megabytes: Size up to which decoded images of each folder stay in memory; the others are read again.
    """

    synthetic_pairs: Annotated[int, Field(ge=3, le=100_000)] = 96
    validation: Fraction = 0.1
    workers: Annotated[int, Field(ge=0, le=128)] = 0
    cache_megabytes: WholeNumber = 2048


class DataSection(PairsSection):
    """The pairs of a run that trains on crops.

    Attributes:
        crop: Height and width of the training crops in pixels. Where a pair is smaller, down to half of this and to 64
            pixels, the crops of its batch are as small.
    """

    crop: Annotated[int, Field(ge=16)] = 96

    @property
    def smallest_side(self) -> int:
        """The height and width in pixels that an image must have at least, at which every fusion loss is defined."""
        return max(-(-self.crop // 2), min(self.crop, ALWAYS_ENOUGH))

    def open_pairs(
        self,
        task: str,
        folders: Sources | None,
        seed: int,
        *,
        roots: Sequence[Path | None] | None = None,
        minimum_size: int | None = None,
        **settings: Any,
    ) -> RunPairs:
        """Open the pairs; every file is read once and checked.

        Args:
            folders: Names of the folders of the sources; None for the usual ones of the task.
            seed: Deals out the pairs, and chooses the synthetic ones.
            roots: Folders of data sets in the place of `root`.
            minimum_size: Height and width in pixels that every image must have at least; None for `smallest_side`.
            **settings: Further arguments of `data.open_pairs`.

        Raises:
            UserError: If a folder or a file in it cannot be used, or there are too few pairs.
        """
        return open_pairs(
            self.roots if roots is None else roots,
            task=task,
            folders=folders,
            stretch=self.stretch,
            minimum_size=self.smallest_side if minimum_size is None else minimum_size,
            synthetic_pairs=self.synthetic_pairs,
            seed=seed,
            validation=self.validation,
            cache_megabytes=self.cache_megabytes,
            **settings,
        )


class BatchDataSection(DataSection):
    """The pairs of a run that trains on batches of crops.

    Attributes:
        shares: How often the pairs of each folder come, relative to the others; null for all folders equally often.
        batch_size: Crops in a batch, over all processes. Crops are mirrored at random.
    """

    shares: tuple[Positive, ...] | None = None
    batch_size: Count = 4

    @property
    def crops(self) -> dict[str, Any]:
        """The arguments of `RunPairs.batches` that follow from the section alone."""
        return {"batch_size": self.batch_size, "crop": self.crop, "workers": self.workers}

    @model_validator(mode="after")
    def _a_share_for_each_folder(self) -> Self:
        if self.shares is not None and len(self.shares) != len(self.roots):
            raise ValueError(f"must have one of data.shares for each folder: {len(self.shares)} for {len(self.roots)}")
        return self


class StageConfig(Section):
    """The keys of every stage.

    Attributes:
        stage: The stage whose config this is.
        run: The run folder, which gets everything that the stage writes.
        seed: Seed of all random numbers of the run.
        device: Device of the networks: "cpu", "cuda", "cuda:1", "mps", or "auto" for CUDA where there is a device.
    """

    stage: str
    run: Path
    seed: WholeNumber = 0
    device: str = "auto"

    steps_in: ClassVar[str] = ""
    """Key of the section with `steps`, `validate_every` and `checkpoint_every`."""

    @property
    def rhythm(self) -> dict[str, Any]:
        """The arguments of `Loop.run` that follow from the config alone."""
        section = getattr(self, self.steps_in)
        rhythm = {key: getattr(section, key) for key in ("steps", "validate_every", "checkpoint_every")}
        return rhythm | {"doing": self.stage}

    def described(self, genotype: Genotype, **entries: Any) -> Genotype:
        """Add to a genotype how the stage made its weights, further entries, and the origin of its architecture."""
        start = {key: value for key in ("genotype", "init", "first_stage") if (value := getattr(self, key, None))}
        provenance: dict[str, Any] = {
            "timfuse": __version__,
            "stage": self.stage,
            "seed": self.seed,
            "config_hash": config_hash(self),
            **{key: str(value) for key, value in start.items()},
            **entries,
        }
        return replace(genotype, provenance=cast(Provenance, provenance))


class TaskConfig(StageConfig):
    """The keys of every stage that works on one fusion task.

    Attributes:
        task: The fusion task: infrared-visible, mri-ct, mri-pet, mri-spect, multi-exposure, multi-focus, or with
            `sources` a task of your own; null for the task of the network.
        sources: Names of the first and the second source, which are also the names of their folders below
            `data.root`: for a task of your own, or where a data set has unusual folder names.
        colour: The source whose colour the fused image keeps, "first", "second" or "both"; null for the usual one.
    """

    task: str | None = None
    sources: Sources | None = None
    colour: Colour | None = None

    @model_validator(mode="after")
    def _task_is_known(self) -> Self:
        if self.task is not None:
            check_task(self.task, self.sources)
        elif self.sources is not None:
            raise ValueError("must have a task for `sources`; name it with task=NAME")
        return self

    def for_task(self, genotype: Genotype) -> Genotype:
        """Give a network the task, the sources and the colour of the config, where it has them."""
        if self.task is None:
            return genotype if self.colour is None else replace(genotype, colour=self.colour)
        same = self.task == genotype.task
        sources = None if self.task in TASKS else self.sources
        return replace(
            genotype, task=self.task, sources=sources, colour=self.colour or (genotype.colour if same else None)
        )


def check_task(name: str, sources: Sources | None) -> None:
    """Raise a `ValueError` if a task is neither one of `genotypes.TASKS` nor described by its sources."""
    if sources is None and name not in TASKS:
        raise ValueError(
            f"unknown task {name!r}{nearest(name, TASKS)}: use {', '.join(TASKS)}, or name the sources of your own"
        )
    if not TASK_NAME.fullmatch(name):
        raise ValueError(f"a task's name must be of up to 40 letters, digits, '-', '_' and '.', not {name!r}")
