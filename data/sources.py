"""Opening a source of pairs: a data set on disk, all files of which are checked first, or synthetic pairs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .boxes import find_boxes, read_boxes
from .class_names import read_class_names
from .folder_pairs import check_pairs
from .masks import find_masks, read_masks
from .pair_source import Labels, PairSource
from .pairs import Pair, find_pairs, read_names
from .synthetic import SyntheticPairs

_SYNTHETIC_SIZE = 128  # pixels


def open_source(
    root: Path | None,
    *,
    task: str = "infrared-visible",
    folders: tuple[str, str] | None = None,
    labels: Labels | None = None,
    stretch: bool = False,
    minimum_size: int = 32,
    synthetic_pairs: int = 96,
    seed: int = 0,
    cache_megabytes: int = 2048,
) -> PairSource:
    """Open the pairs of a data set, or synthetic ones; every image and every label is read once and checked.

    Boxes are `boxes/NAME.txt` in the form of YOLO with class names in `classes.txt`; see `find_boxes` and `read_boxes`.
    Class masks are `label/NAME.png` with class names in `label-classes.txt`; see `find_masks` and `read_masks`. If
    `labelled.txt` names pairs, only these have masks, and the other pairs are not in the source.

    Args:
        root: Folder of the data set; None for synthetic pairs.
        task: A key of `genotypes.TASKS`; any name if `folders` are given.
        folders: Folders in `root` with the images of the first and the second source; see `find_pairs`.
        stretch: Whether to stretch images of sensor counts or temperatures; see `find_stretch`.
        minimum_size: Smallest height and width in pixels that an image may have.
        synthetic_pairs: Number of pairs to render where `root` is None.
        seed: Chooses the synthetic pairs.
        cache_megabytes: Memory for decoded pairs; the pairs beyond it are read again when needed.

    Raises:
        UserError: If the folder or a file in it cannot be used, a pair has no label, or there are no such synthetic
            pairs.

    Example:
        >>> source = open_source(None, task="mri-pet", synthetic_pairs=6)
        >>> len(source), source.size(5), source[5][0].dtype
        (6, (128, 128), dtype('uint8'))
    """
    if root is None:
        if folders is not None:
            raise UserError(
                f"the folders {' and '.join(folders)} of {task} belong to no data set; give its folder as root"
            )
        return SyntheticPairs(task, synthetic_pairs, max(_SYNTHETIC_SIZE, minimum_size), seed, labels)
    pairs, unlabelled = _labelled(root, find_pairs(root, task, folders=folders, stretch=stretch), labels)
    names = [pair.name for pair in pairs]
    classes: tuple[str, ...] = ()
    files: list[Path] = []
    if labels == "boxes":
        files, classes = find_boxes(root, names), read_class_names(root / "classes.txt")
    elif labels == "masks":
        files = find_masks(root, names)
    with Progress(len(pairs), "checking image pairs") as progress:
        if unlabelled:
            progress.print(
                f"{len(unlabelled)} of {len(unlabelled) + len(pairs)} pairs in {root} have no mask "
                "(labelled.txt does not name them) and are not used"
            )
        source = check_pairs(pairs, minimum_size, cache_megabytes=cache_megabytes, progress=progress)
        if labels is None:
            return source
        if labels == "masks":
            masks, classes = read_masks(files, source.sizes, root / "label-classes.txt")
            return replace(source, classes=classes, masks=tuple(masks), unlabelled=unlabelled)
        read = [
            read_boxes(file, len(classes), height=height, width=width)
            for file, (height, width) in zip(files, source.sizes, strict=True)
        ]
        clipped = [count for _, count in read if count]
        if clipped:
            progress.print(
                f"{sum(clipped)} boxes of {len(clipped)} pairs in {root} reach over the border of their image; "
                "they were clipped to it"
            )
    return replace(source, classes=classes, boxes=tuple(objects for objects, _ in read))


def _labelled(root: Path, pairs: list[Pair], labels: Labels | None) -> tuple[Sequence[Pair], tuple[str, ...]]:
    """Part the pairs that have labels from the names of those that have none."""
    listed = root / "labelled.txt"
    if labels != "masks" or not listed.exists():
        return pairs, ()
    chosen = set(read_names(listed, {pair.name for pair in pairs}))
    return (
        [pair for pair in pairs if pair.name in chosen],
        tuple(pair.name for pair in pairs if pair.name not in chosen),
    )
