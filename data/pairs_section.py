"""Where the pairs of a run come from, as a section of a config file; search, training and finetuning extend it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ..runtime.config import Count, Fraction, Positive, Section
from .run_pairs import RunPairs, open_pairs

Roots = Path | Annotated[tuple[Path, ...], Field(min_length=1)] | None


def roots_of(root: Roots) -> tuple[Path | None, ...]:
    """List the folders of a config's key `root`; None alone stands for synthetic pairs."""
    return root if isinstance(root, tuple) else (root,)


def origin_of(roots: Sequence[Path | None]) -> str | list[str]:
    """Write where pairs come from as provenance tells it: the folder, the folders, or "synthetic pairs"."""
    names = [str(root) for root in roots if root] or ["synthetic pairs"]
    return names if len(names) > 1 else names[0]


class PairsSection(Section):
    """Where pairs come from and how they are cut.

    Attributes:
        root: Folder of a data set in any layout of the task, or a list of such folders to mix; None for synthetic
            pairs.
        shares: Relative frequency of each folder's pairs in the batches; None for all folders equally often.
        synthetic_pairs: Number of pairs to render where `root` is None.
        crop: Height and width of the crops in pixels; they are mirrored at random.
        batch_size: Crops in a batch.
        validation: Fraction of a folder's pairs for validation, where it has no train.txt and val.txt.
        workers: Processes that prepare batches; changes nothing but the speed.
        cache_megabytes: Memory for the decoded pairs of each folder; the others are read again when needed.
    """

    root: Roots = None
    shares: tuple[Positive, ...] | None = None
    synthetic_pairs: Annotated[int, Field(ge=2)] = 96
    crop: Annotated[int, Field(ge=16)] = 64
    batch_size: Count = 4
    validation: Fraction = 0.1
    workers: Annotated[int, Field(ge=0)] = 0
    cache_megabytes: Annotated[int, Field(ge=0)] = 2048

    @property
    def roots(self) -> tuple[Path | None, ...]:
        """The folders, or None alone for synthetic pairs."""
        return roots_of(self.root)

    @property
    def origin(self) -> str | list[str]:
        """Where the pairs come from, as provenance tells it."""
        return origin_of(self.roots)

    def _open(self, task: str, **settings: Any) -> RunPairs:
        """Open the pairs of a task; `settings` are further arguments of `data.open_pairs`."""
        return open_pairs(
            self.roots,
            task=task,
            shares=self.shares,
            synthetic_pairs=self.synthetic_pairs,
            validation=self.validation,
            cache_megabytes=self.cache_megabytes,
            **settings,
        )

    @model_validator(mode="after")
    def _a_share_for_each_folder(self) -> Self:
        if self.shares is not None and len(self.shares) != len(self.roots):
            raise ValueError(f"must have one of data.shares for each folder: {len(self.shares)} for {len(self.roots)}")
        if len(set(self.roots)) != len(self.roots):
            raise ValueError("must name each folder of data.root once")
        return self
