"""The pairs of a run: those of a folder, every file of which is checked first, or the embedded synthetic pairs."""

from pathlib import Path

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .checking import check_pairs
from .pairs import find_pairs
from .stream import PairSource
from .synthetic import SyntheticPairs

SCENE_SIZE = 128  # pixels, of the synthetic pairs


def open_source(
    root: Path | None,
    *,
    task: str = "infrared-visible",
    folders: tuple[str, str] | None = None,
    minimum_size: int,
    synthetic_pairs: int,
    seed: int,
    cache_megabytes: int = 2048,
) -> PairSource:
    """Open a source of pairs that are all of a size at least.

    Args:
        root: The folder of a data set; None for synthetic pairs.
        task: A key of `genotypes.TASKS`; with `folders` any name.
        folders: As for `find_pairs`.
        minimum_size: Height and width, in pixels, that every image must have at least.
        synthetic_pairs: How many pairs to make where `root` is None.
        seed: Chooses the synthetic pairs.
        cache_megabytes: Decoded pairs beyond this are read again when needed.

    Returns:
        The pairs.

    Raises:
        UserError: The folder or a file in it cannot be used, or there are no synthetic pairs of this task.
    """
    if root is None:
        if folders is not None:
            raise UserError(
                f"the folders {' and '.join(folders)} of {task} belong to no data set; give its folder as root"
            )
        return SyntheticPairs(task, synthetic_pairs, max(SCENE_SIZE, minimum_size), seed)
    pairs = find_pairs(root, task, folders=folders)
    with Progress(len(pairs), "checking image pairs") as progress:
        return check_pairs(pairs, minimum_size, cache_megabytes=cache_megabytes, progress=progress)
