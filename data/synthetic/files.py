"""Synthetic pairs as image files, in the layout of a data set."""

from pathlib import Path

from ...genotypes.choices import check_choice
from ..images import write_pixels
from ..layouts import LAYOUTS
from .tasks import make_pair, pair_name


def write_scenes(
    folder: Path, count: int, *, task: str = "infrared-visible", height: int, width: int, seed: int
) -> tuple[Path, Path]:
    """Write aligned synthetic images of a task, in colour where its sources have colour.

    Args:
        folder: Gets `ir/scene_00000.png`, `vis/scene_00000.png` and so on, or the folders that come first in the
            task's `LAYOUTS`; files of these names are replaced.
        count: How many pairs.
        task: A key of `genotypes.TASKS`.
        height: In pixels, at least 32.
        width: In pixels, at least 32.
        seed: Chooses the pairs.

    Returns:
        The folders of the first and of the second images.

    Raises:
        UserError: If there is no such task or a file cannot be written.
    """
    check_choice("task", task, LAYOUTS)
    first, second = ((folder / pattern).parent for pattern in LAYOUTS[task][0])
    for index in range(count):
        pair = make_pair(task, seed, index, height=height, width=width)
        for side, pixels in zip((first, second), pair, strict=True):
            write_pixels(side / f"{pair_name(task, index)}.png", pixels)
    return first, second
