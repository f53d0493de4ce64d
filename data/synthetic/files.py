"""Synthetic scenes as image files, in the layout of a data set."""

from pathlib import Path

from ..images import write_pixels
from .scenes import make_scene


def write_scenes(folder: Path, count: int, *, height: int, width: int, seed: int) -> None:
    """Write aligned infrared and visible images of synthetic scenes.

    Args:
        folder: Gets `ir/scene_00000.png`, `vis/scene_00000.png` and so on; files of these names are replaced.
        count: How many scenes.
        height: In pixels, at least 32.
        width: In pixels, at least 32.
        seed: Chooses the scenes.

    Raises:
        UserError: If a file cannot be written.
    """
    for index in range(count):
        scene = make_scene([seed, index], height=height, width=width)
        for side, pixels in (("ir", scene.first), ("vis", scene.second)):
            write_pixels(folder / side / f"scene_{index:05d}.png", pixels)
