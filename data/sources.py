"""Opening a source of pairs: a data set on disk, all files of which are checked first, or synthetic pairs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .box_files import find_boxes
from .folder_pairs import check_pairs
from .masks import find_masks, read_masks
from .misalignment import LOOKED_AT, misalignment
from .pair_source import Labels, PairSource
from .pairs import Pair, find_pairs, read_names
from .splits import spread
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

    A warning is printed if some of the pairs look misaligned; see `misalignment`.

    Boxes are `boxes/NAME.txt` or `labels/NAME.txt` in the form of YOLO with class names in `classes.txt` or
    `data.yaml`, `annotations/NAME.xml` in the form of Pascal VOC, or `annotations/*.json` in the form of COCO; see
    `find_boxes`. A pair without a label file shows no object if others have one. Class masks are `label/NAME.png`
    with class names in `label-classes.txt`, which has a colour for each class if the masks have colours; see
    `find_masks` and `read_masks`. If `labelled.txt` names pairs, only these have masks, and the other pairs are not in
    the source.

    Args:
        root: Folder of the data set; None for synthetic pairs.
        task: A key of `genotypes.TASKS`; any name if `folders` are given.
        folders: Folders in `root` with the images of the first and the second source; see `find_pairs`.
        stretch: Whether to stretch images of sensor counts or temperatures; see `find_stretch`.
        minimum_size: Smallest height and width in pixels that an image may have.
        synthetic_pairs: Number of pairs to render where `root` is None; they are twice as large, and 128 pixels at
            least.
        seed: Chooses the synthetic pairs.
        cache_megabytes: Memory for decoded pairs; the pairs beyond it are read again when needed.

    Raises:
        UserError: If the folder or a file in it cannot be used, a pair has no mask, none has boxes, or there are no
            such synthetic pairs.

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
        return SyntheticPairs(task, synthetic_pairs, max(_SYNTHETIC_SIZE, 2 * minimum_size), seed, labels)
    pairs, unlabelled = _labelled(root, find_pairs(root, task, folders=folders, stretch=stretch), labels)
    names = [pair.name for pair in pairs]
    boxes = find_boxes(root, names) if labels == "boxes" else None
    masks = find_masks(root, names) if labels == "masks" else None
    with Progress(len(pairs), "checking image pairs") as progress:
        if unlabelled:
            progress.print(
                f"{len(unlabelled)} of {len(unlabelled) + len(pairs)} pairs in {root} have no mask "
                "(labelled.txt does not name them) and are not used"
            )
        source = check_pairs(pairs, minimum_size, cache_megabytes=cache_megabytes, progress=progress)
        if warning := misalignment([source[index] for index in spread(range(len(source)), LOOKED_AT)]):
            progress.print(f"warning: {root}: {warning}")
        if boxes is not None:
            classes, objects = boxes.read(source.sizes, progress)
            return replace(source, classes=classes, boxes=objects)
        if masks is not None:
            read, classes = read_masks(masks, source.sizes, root / "label-classes.txt", progress)
            return replace(source, classes=classes, masks=tuple(read), unlabelled=unlabelled)
    return source


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
