"""PNG files with the class masks of images, one file for each pair."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .class_names import Colour, read_mask_classes
from .images import Pixels, open_image, read_pixels
from .layouts import MASKS, divided, find_images
from .pair_batch import IGNORED

_FACTORS = {"1": 1, "L;2": 85, "L;4": 17}  # by which pillow spreads the values of few bits over 0 to 255

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
        raise UserError(
            f"{root} has no labels for segmentation: give label/NAME.png with class ids as pixel values, or with "
            "the colours that label-classes.txt lists"
        )
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
    files: Sequence[Path], sizes: Sequence[tuple[int, int]], names: Path, progress: Progress | None = None
) -> tuple[list[Mask], tuple[str, ...]]:
    """Read class masks: PNG with a class id or a colour in each pixel, and the id `IGNORED` for no class.

    Args:
        sizes: Height and width of each pair, which its mask must have.
        names: A text file with the class names, and with their colours if the masks show colours; see
            `read_mask_classes`. If it does not exist, the classes are called background, class 1, class 2 and so on, or
            background and target if there are just two.
        progress: Shows which of the named classes occur in no mask.

    Returns:
        The masks, (H, W) uint8, and the class names.

    Raises:
        UserError: If a mask is damaged, of another kind or size, or has an id or a colour without a name; if all masks
            have only background; or if no file names the classes, and most ids below the largest occur in no mask.
    """
    classes, colours = read_mask_classes(names) if names.exists() else ((), ())
    with ThreadPoolExecutor() as executor:
        masks = list(executor.map(partial(read_mask, colours=colours), files))
    for file, mask, (height, width) in zip(files, masks, sizes, strict=True):
        if mask.shape != (height, width):
            raise UserError(
                f"the mask {file} is {mask.shape[1]}x{mask.shape[0]}, its pair is {width}x{height}; "
                "bring it to the size of the pair, without mixing neighbouring values"
            )
    ids = [_ids(mask) for mask in masks]
    if not classes:
        return masks, _default_names(files, ids, names)
    _check_ids(files, ids, names, classes)
    absent = [name for number, name in enumerate(classes) if number not in set[int]().union(*ids)]
    if absent and progress is not None:
        progress.print(f"of the classes in {names}, no mask shows {', '.join(absent)}")
    return masks, classes


def read_mask(path: Path, colours: Sequence[Colour] = ()) -> Mask:
    """Read the class ids of one mask, (H, W) uint8, from a PNG file.

    Args:
        colours: The colour of each class, if masks show colours; without them, a mask holds ids as grey values of any
            depth, as places in a palette or as three equal channels.

    Raises:
        UserError: If the file is missing, damaged or no PNG, or has a colour or an id that is none of a class.
    """
    try:
        with open_image(path) as image:
            if image.format == "JPEG":
                raise UserError(
                    f"the mask {path} is a JPEG file, which mixes class ids by its compression; save it as PNG"
                )
            if image.format != "PNG":
                raise UserError(f"the mask {path} is no PNG file ({image.format}); save it as one")
            bits = str(image.tile[0][3]) if image.mode in ("L", "1") else ""
            if not colours and (image.mode == "P" or bits in _FACTORS):
                return np.array(image).astype(np.uint8) // np.uint8(_FACTORS.get(bits, 1))
    except UserError:
        raise
    except Exception as error:  # decoders raise errors of every kind where a file is damaged
        raise UserError(f"cannot read the mask {path}; replace it") from error
    pixels = read_pixels(path)
    if colours:
        return _by_colour(path, pixels, colours)
    if pixels.ndim == 3:
        if coloured := _first(pixels, (pixels != pixels[..., :1]).any(axis=2)):
            raise UserError(
                f"the mask {path} shows the colour {coloured} and no class ids; write lines 'red green blue name' into "
                "label-classes.txt, or save it with class ids as grey values"
            )
        pixels = pixels[..., 0]
    if pixels.max() > IGNORED:
        raise UserError(f"the mask {path} holds {pixels.max()}, but class ids end at 254; save it with class ids")
    return pixels.astype(np.uint8)


def _by_colour(path: Path, pixels: Pixels, colours: Sequence[Colour]) -> Mask:
    """Translate colours into class ids."""
    channels = np.broadcast_to(pixels.reshape(*pixels.shape[:2], -1), (*pixels.shape[:2], 3))
    codes, known = _codes(channels), _codes(np.array(colours))
    order = np.argsort(known)
    places = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
    if unknown := _first(channels, known[order][places] != codes):
        raise UserError(
            f"the mask {path} shows the colour {unknown}, which label-classes.txt does not list; add it there"
        )
    return order.astype(np.uint8)[places]


def _codes(colours: NDArray[Any]) -> NDArray[np.int64]:
    """Make one number of each colour (..., 3) of up to 16 bits."""
    red, green, blue = (colours[..., channel].astype(np.int64) for channel in range(3))
    return (red << 32) | (green << 16) | blue


def _first(pixels: NDArray[Any], chosen: NDArray[np.bool_]) -> str:
    """Write the first of the chosen pixels as text, empty if there is none."""
    return " ".join(map(str, pixels[chosen][0])) if chosen.any() else ""


def _search(root: Path, patterns: Sequence[str]) -> dict[str, list[Path]]:
    """Find the masks in the one layout that has any; empty if there are none."""
    present = [(pattern, found) for pattern in patterns if (found := find_images(root, pattern))]
    if len(present) > 1:
        ways = " and as ".join(pattern for pattern, _ in present)
        raise UserError(f"{root} holds masks as {ways}; move one kind of them away")
    return present[0][1] if present else {}


def _ids(mask: Mask) -> set[int]:
    """List the class ids in a mask."""
    present = np.zeros(256, bool)
    present[mask] = True
    present[IGNORED] = False
    return set(present.nonzero()[0].tolist())


def _check_ids(files: Sequence[Path], ids: Sequence[set[int]], names: Path, classes: Sequence[str]) -> None:
    """Refuse ids without a name, and masks that show nothing."""
    for file, present in zip(files, ids, strict=True):
        if max(present, default=0) >= len(classes):
            raise UserError(
                f"the mask {file} holds the class id {max(present)}, but {names} ends at {len(classes) - 1}; "
                "name the class there or correct the mask"
            )
    if not set[int]().union(*ids) - {0}:
        example = f" ({classes[1]} as 1)" if len(classes) > 1 else ""
        raise UserError(_nothing(files, example))


def _default_names(files: Sequence[Path], ids: Sequence[set[int]], names: Path) -> tuple[str, ...]:
    """Name classes that no file names, after refusing masks that show nothing and ids that are hardly of a class."""
    largest = max(max(present, default=0) for present in ids)
    if largest == 0:
        raise UserError(_nothing(files))
    present = len(set[int]().union(*ids))
    absent = largest + 1 - present
    if absent > present:  # a wrong pixel, such as 254, must not make hundreds of classes
        file = next(file for file, each in zip(files, ids, strict=True) if largest in each)
        raise UserError(
            f"the mask {file} holds the class id {largest}, but {absent} ids below it occur in no mask of "
            f"{file.parent}; correct its pixels, or name all classes in {names}"
        )
    return ("background", "target") if largest == 1 else ("background", *(f"class {i}" for i in range(1, largest + 1)))


def _nothing(files: Sequence[Path], example: str = "") -> str:
    return (
        f"all masks in {files[0].parent} show nothing but background (0) and what is ignored ({IGNORED}); "
        f"save them with class ids from 1 on as pixel values{example}"
    )
