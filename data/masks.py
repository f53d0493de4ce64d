"""PNG files with the class masks of images, one file for each pair."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import DecompressionBombError

from ..runtime.errors import UserError
from .class_names import read_class_names
from .images import open_image
from .layouts import MASKS, divided, find_images
from .pair_batch import IGNORED

_BROKEN = (OSError, SyntaxError, ValueError, DecompressionBombError)

Mask = NDArray[np.uint8]  # (H, W)


def find_masks(root: Path, names: Sequence[str]) -> list[Path]:
    """Find the mask of each pair in one of the layouts `MASKS`; in a divided data set below `train`.

    Raises:
        UserError: If there are no masks or masks in two layouts, or a pair has none or two.
    """
    found = _search(root, MASKS) or _search(
        root, [first for pattern in MASKS for first, _ in divided((pattern, pattern), "train")]
    )
    if not found:
        raise UserError(f"{root} has no labels for segmentation: give label/NAME.png with class ids as pixel values")
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(
            f"the pair {missing[0]} has no mask ({len(missing)} of {len(names)} pairs have none); add it beside "
            f"{next(iter(found.values()))[0]}, or name the pairs that have one in {root / 'labelled.txt'}"
        )
    for files in (found[name] for name in names):
        if len(files) > 1:
            raise UserError(f"{files[0]} and {files[1]} are masks of one pair; keep one of them")
    return [found[name][0] for name in names]


def read_masks(
    files: Sequence[Path], sizes: Sequence[tuple[int, int]], names: Path
) -> tuple[list[Mask], tuple[str, ...]]:
    """Read class masks: 8-bit PNG with the class id as grey value or palette index, and `IGNORED` for no class.

    Args:
        sizes: Height and width of each pair, which its mask must have.
        names: A text file with the class names; see `read_class_names`. If it does not exist, the classes are called
            background, class 1, class 2 and so on, or background and target if there are just two.

    Returns:
        The masks, (H, W) uint8, and the class names.

    Raises:
        UserError: If a mask is damaged, of another kind or size, or has an id without a name; or if all masks have
            only background and no file names further classes.
    """
    with ThreadPoolExecutor() as executor:
        masks = list(executor.map(read_mask, files))
    for file, mask, (height, width) in zip(files, masks, sizes, strict=True):
        if mask.shape != (height, width):
            raise UserError(
                f"the mask {file} is {mask.shape[1]}x{mask.shape[0]}, its pair is {width}x{height}; "
                "bring it to the size of the pair, without mixing neighbouring values"
            )
    largest = [_largest_id(mask) for mask in masks]
    if not names.exists():
        return masks, _default_names(max(largest), files[0].parent)
    classes = read_class_names(names)
    for file, number in zip(files, largest, strict=True):
        if number >= len(classes):
            raise UserError(
                f"the mask {file} holds the class id {number}, but {names} ends at {len(classes) - 1}; "
                "name the class there or correct the mask"
            )
    return masks, classes


def read_mask(path: Path) -> Mask:
    """Read the class ids of one mask, (H, W) uint8, from an 8-bit PNG file, grey or with a palette.

    Raises:
        UserError: If the file is missing, damaged or of another kind.
    """
    try:
        with open_image(path) as image:
            # Pillow spreads the values of grey images with fewer bits over 0 to 255: a 1 of four bits comes as 17.
            grey = image.mode == "L" and image.format == "PNG" and ";" not in str(image.tile[0][3])
            palette = image.mode == "P" and image.format == "PNG"
            if not (grey or palette):
                raise UserError(
                    f"the mask {path} is no 8-bit grey or palette PNG ({image.format}, {image.mode}); save it as one, "
                    "with the class id as the value of each pixel"
                )
            return np.array(image)
    except _BROKEN as error:
        raise UserError(f"cannot read the mask {path}; replace it") from error


def _search(root: Path, patterns: Sequence[str]) -> dict[str, list[Path]]:
    """Find the masks in the one layout that has any; empty if there are none."""
    present = [(pattern, found) for pattern in patterns if (found := find_images(root, pattern))]
    if len(present) > 1:
        ways = " and as ".join(pattern for pattern, _ in present)
        raise UserError(f"{root} holds masks as {ways}; move one kind of them away")
    return present[0][1] if present else {}


def _largest_id(mask: Mask) -> int:
    present = np.zeros(256, bool)
    present[mask] = True
    present[IGNORED] = False
    return int(present.nonzero()[0].max(initial=0))


def _default_names(largest: int, folder: Path) -> tuple[str, ...]:
    if largest == 0:
        raise UserError(
            f"all masks in {folder} show nothing but background (0) and what is ignored ({IGNORED}); "
            "save them with class ids from 1 on as pixel values"
        )
    return ("background", "target") if largest == 1 else ("background", *(f"class {i}" for i in range(1, largest + 1)))
