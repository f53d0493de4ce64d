"""The layouts of the field's data sets on disk, and how to find the images of one source in a layout."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path

from .images import SUFFIXES

Layout = tuple[str, str]
"""Paths of the first and the second source of a pair in the data set, without suffix.

NAME stands for the pair's name, `*` for anything, and `?` for "-", "_", a blank or nothing; capitals and small letters
are the same.
"""

_INFRARED = ("ir", "inf", "infrared", "thermal", "tir", "lwir", "nir", "t", "ii")
_VISIBLE = ("vis", "vi", "visible", "visi", "rgb")
_MRI = ("mri", "mr")
_UNDER = ("under", "ue", "underexposed", "under_exposed", "low")
_OVER = ("over", "oe", "overexposed", "over_exposed", "high")


def _layouts(firsts: Iterable[str], seconds: Iterable[str], form: str = "{}/NAME") -> tuple[Layout, ...]:
    """List the layouts of all names of the first source with all names of the second."""
    return tuple((form.format(first), form.format(second)) for first, second in product(firsts, seconds))


def _medical(modality: str) -> tuple[Layout, ...]:
    """List the layouts of the Harvard sets: two folders, in the data set itself or below the folder of the task."""
    forms = ("{}/NAME", f"mri-{modality}/{{}}/NAME", f"{modality}-mri/{{}}/NAME")
    return tuple(layout for form in forms for layout in _layouts(_MRI, (modality, "other"), form))


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "infrared-visible": (
        *_layouts(_INFRARED, _VISIBLE),  # M3FD, TNO: ir, vis; MSRS: ir, vi; FMB, LLVIP: infrared, visible
        ("cropinfrared/NAME", "crop_lr_visible/NAME"),  # RoadScene
        ("NAME/ir*", "NAME/vis*"),  # TNO, one camera's scenes
        ("athena_images/NAME/ir*", "athena_images/NAME/vis*"),  # TNO
        *_layouts(_INFRARED[1:], _VISIBLE, "NAME/{}"),
        *_layouts(_INFRARED[:1], ("vi", "rgb"), "NAME/{}"),
        ("ir?NAME", "vis?NAME"),
        ("NAME?ir", "NAME?vis"),
    ),
    "mri-ct": _medical("ct"),
    "mri-pet": _medical("pet"),
    "mri-spect": _medical("spect"),
    "multi-exposure": (
        *_layouts(_UNDER, _OVER),  # SICE: ue, oe
        ("NAME/NAME_a", "NAME/NAME_b"),  # MEFB
        ("input/NAME/NAME_a", "input/NAME/NAME_b"),  # MEFB
    ),
    "multi-focus": (
        ("near/NAME", "far/NAME"),
        ("source_1/NAME", "source_2/NAME"),  # MFI-WHU
        ("source1/NAME", "source2/NAME"),
        ("sourcea/NAME", "sourceb/NAME"),
        ("a/NAME", "b/NAME"),
        ("NAME-a", "NAME-b"),  # Lytro
        ("NAME_a", "NAME_b"),
    ),
}
"""The layouts of each task of `genotypes.TASKS`; the comments name data sets that have them."""

MASKS = ("label/NAME", "labels/NAME", "segmentation_labels/NAME")  # FMB; MSRS
"""The layouts of the class masks of pairs, each in the form of half a `Layout`."""

BOXES = (
    ("boxes/NAME", ".txt"),
    ("labels/NAME", ".txt"),
    ("annotations/NAME", ".xml"),  # LLVIP
    ("annotation/NAME", ".xml"),  # M3FD
    ("annotations/NAME", ".json"),
    ("annotation/NAME", ".json"),
)
"""The layouts of the boxes of pairs, and the suffix of their files: of YOLO, Pascal VOC and COCO.

Of several that a data set has, the first counts. The names of COCO's files are no names of pairs.
"""


def are_swapped(task: str, first: Path, second: Path) -> bool:
    """Tell whether the folders of two images have the names of a task's sources, each that of the other one.

    Example:
        >>> are_swapped("mri-pet", Path("PET/1.png"), Path("MRI/1.png"))
        True
    """
    first_folder, second_folder = (f"{path.parent.name.lower()}/NAME" for path in (first, second))
    return (second_folder, first_folder) in LAYOUTS.get(task, ())


def divided(layout: Layout, part: str) -> list[Layout]:
    """List the layouts of one part of a divided data set; the part's folder may be at any depth above the names.

    Args:
        part: Name of the folder of the part.

    Example:
        >>> divided(("ir/NAME", "vis/NAME"), "train")
        [('train/ir/NAME', 'train/vis/NAME'), ('ir/train/NAME', 'vis/train/NAME')]
    """
    first, second = (pattern.split("/") for pattern in layout)
    depths = range(min(_fixed(first), _fixed(second)) + 1)
    return [
        ("/".join([*first[:depth], part, *first[depth:]]), "/".join([*second[:depth], part, *second[depth:]]))
        for depth in depths
    ]


def find_images(root: Path, pattern: str) -> dict[str, list[Path]]:
    """Find the images of one source in a data set; see `find_files`."""
    return find_files(root, pattern, SUFFIXES)


def find_files(root: Path, pattern: str, suffixes: Sequence[str] | None) -> dict[str, list[Path]]:
    """Find the files of one half of a `Layout` in a data set.

    Args:
        suffixes: The suffixes that the files may have, in lower case; None for any.

    Returns:
        The files of each name, more than one if several fit; empty if there are none. Hidden files and files with
        other suffixes are ignored.
    """
    *folders, last = pattern.split("/")
    places = [(root, "")]  # folders, each with the pair's name once its path has it
    for folder in folders:
        places = [(path, name) for place in places for path, name in _fitting(*place, folder) if path.is_dir()]
    found: dict[str, list[Path]] = {}
    for place in places:
        for path, name in _fitting(*place, last, suffixes):
            found.setdefault(name, []).append(path)
    return found


def _fixed(parts: list[str]) -> int:
    """Count the folders above the first part that depends on the name."""
    return next(index for index, part in enumerate(parts) if "NAME" in part)


def _fitting(folder: Path, known: str, part: str, suffixes: Sequence[str] | None = ()) -> Iterator[tuple[Path, str]]:
    """Yield the entries of a folder that fit one part of a pattern, with the pair's name once it is known.

    Args:
        suffixes: The suffixes that files may have, None for any; empty for folders.
    """
    expression = re.escape(part).replace(r"\*", ".*").replace(r"\?", "[-_ ]?")
    expression = expression.replace("NAME", re.escape(known) if known else "(?P<name>.+?)")
    fits = re.compile(expression, re.IGNORECASE | re.DOTALL).fullmatch
    try:
        entries = sorted(os.listdir(folder))
    except PermissionError:  # a disk's lost+found, say, beside the folders of the set
        return
    for entry in entries:
        stem, suffix = (entry, "") if suffixes == () else os.path.splitext(entry)
        kind = not suffixes or suffix.lower() in suffixes
        if kind and not entry.startswith(".") and (match := fits(stem)):
            yield folder / entry, match.groupdict().get("name", known)
