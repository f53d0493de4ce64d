"""Pairs with what is known of them, boxes or class masks: those of a folder, all checked first, or synthetic scenes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .boxes import find_boxes, read_boxes
from .checking import check_pairs
from .class_names import read_class_names
from .fingerprint import fingerprint
from .images import Pixels
from .masks import Mask, find_masks, read_masks
from .objects import Objects
from .pairs import Pair, find_pairs, read_names
from .sources import SCENE_SIZE
from .splits import hold_out
from .stream import PairSource
from .synthetic import MASK_CLASSES, SCENE_CLASSES, SyntheticScenes

Labels = Literal["boxes", "masks"]


class LabelledSource(PairSource, Protocol):
    """A source of pairs that also has the boxes or the class mask of each."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the labels refer to."""

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Names of further pairs of the data set, which have no label and are not in the source."""

    def objects(self, index: int) -> Objects:
        """Return the objects of a pair, of a source that was opened for its boxes."""

    def mask(self, index: int) -> Mask:
        """Return the mask of a pair, of a source that was opened for its masks."""


class LabelledPairs:
    """Pairs with their labels, either boxes or masks.

    Args:
        pairs: The pairs.
        classes: Names of the classes.
        objects: Of each pair.
        masks: Of each pair.
        unlabelled: Names of further pairs of the data set, which have no label.
    """

    def __init__(
        self,
        pairs: PairSource,
        classes: tuple[str, ...],
        *,
        objects: Sequence[Objects] | None = None,
        masks: Sequence[Mask] | None = None,
        unlabelled: tuple[str, ...] = (),
    ) -> None:
        self.names, self.classes, self.unlabelled = pairs.names, classes, unlabelled
        self._pairs, self._objects, self._masks = pairs, objects, masks

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        return self._pairs[index]

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair."""
        return self._pairs.size(index)

    def fingerprint(self) -> str:
        """Tell these pairs with their labels from all others."""
        labels: list[object] = [[each.boxes.tolist(), each.classes.tolist()] for each in self._objects or ()]
        labels += [hashlib.blake2b(mask.tobytes()).hexdigest() for mask in self._masks or ()]
        return fingerprint((self._pairs.fingerprint(), self.classes, self.unlabelled, labels))

    def objects(self, index: int) -> Objects:
        """Return the objects of a pair."""
        assert self._objects is not None, "opened for its masks"
        return self._objects[index]

    def mask(self, index: int) -> Mask:
        """Return the (H, W) mask of a pair."""
        assert self._masks is not None, "opened for its boxes"
        return self._masks[index]


class LabelledScenes(SyntheticScenes):
    """Synthetic scenes with their labels.

    Args:
        count: How many scenes, at least 1.
        size: Height and width in pixels, at least 32.
        seed: Chooses the scenes.
        labels: Of which labels `classes` are the names.
    """

    unlabelled = ()

    def __init__(self, count: int, size: int, seed: int, labels: Labels) -> None:
        super().__init__(count, size, seed)
        self.classes = SCENE_CLASSES if labels == "boxes" else MASK_CLASSES

    def objects(self, index: int) -> Objects:
        """Return the objects of a scene."""
        scene = self.scene(index)
        return Objects(torch.from_numpy(scene.boxes), torch.from_numpy(scene.classes))

    def mask(self, index: int) -> Mask:
        """Return the (H, W) mask of a scene."""
        return self.scene(index).mask


def open_labelled(
    root: Path | None,
    labels: Labels,
    *,
    minimum_size: int,
    synthetic_pairs: int,
    seed: int,
    cache_megabytes: int = 2048,
) -> LabelledSource:
    """Open infrared-visible pairs with their labels; every image and every label is read once, so that it is checked.

    Boxes lie as `find_boxes` and `read_boxes` tell, with their class names in `classes.txt`; boxes that reach over the
    border of their image are clipped to it and counted in a note. Masks lie as `find_masks` and `read_masks` tell,
    with their class names in `label-classes.txt`, and where `labelled.txt` names pairs, these alone are used for them.

    Args:
        root: The folder of a data set; None for synthetic scenes.
        labels: Which labels to use.
        minimum_size: Height and width, in pixels, that every image must have at least.
        synthetic_pairs: How many scenes to make where `root` is None.
        seed: Chooses the synthetic scenes.
        cache_megabytes: Decoded pairs beyond this are read again when needed; labels stay in memory.

    Returns:
        The pairs.

    Raises:
        UserError: The folder or a file in it cannot be used, or a pair has no label.
    """
    if root is None:
        return LabelledScenes(synthetic_pairs, max(SCENE_SIZE, minimum_size), seed, labels)
    pairs = find_pairs(root)
    listed = root / "labelled.txt"
    unlabelled: tuple[str, ...] = ()
    if labels == "masks" and listed.exists():
        chosen = set(read_names(listed, {pair.name for pair in pairs}))
        unlabelled = tuple(pair.name for pair in pairs if pair.name not in chosen)
        pairs = [pair for pair in pairs if pair.name in chosen]
    names = [pair.name for pair in pairs]
    if labels == "boxes":
        files, classes = find_boxes(root, names), read_class_names(root / "classes.txt")
    else:
        files = find_masks(root, names)
    with Progress(len(pairs), "checking labelled pairs") as progress:
        if unlabelled:
            progress.print(
                f"{len(unlabelled)} of {len(unlabelled) + len(pairs)} pairs in {root} have no mask "
                "(labelled.txt does not name them) and are not used"
            )
        source = check_pairs(pairs, minimum_size, cache_megabytes=cache_megabytes, progress=progress)
        sizes = [_size(pair) for pair in pairs]
        if labels == "masks":
            masks, classes = read_masks(files, sizes, root / "label-classes.txt")
            return LabelledPairs(source, classes, masks=masks, unlabelled=unlabelled)
        read = [
            read_boxes(file, len(classes), height=height, width=width)
            for file, (height, width) in zip(files, sizes, strict=True)
        ]
        clipped = [count for _, count in read if count]
        if clipped:
            progress.print(
                f"{sum(clipped)} boxes of {len(clipped)} pairs in {root} reach over the border of their image; "
                "they were clipped to it"
            )
    return LabelledPairs(source, classes, objects=[objects for objects, _ in read])


def split_labelled(
    source: LabelledSource, *, seed: int, folder: Path | None = None, validation: float = 0.1
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split labelled pairs into training and validation as `hold_out` does; the two files may name unlabelled ones.

    Args:
        source: The pairs.
        seed: As for `hold_out`.
        folder: As for `hold_out`; pairs without a label that its files name are passed over.
        validation: As for `hold_out`.

    Returns:
        The positions in `source` of the training and of the validation pairs, each sorted by name.

    Raises:
        UserError: As `hold_out`, or if a file names no labelled pair.
    """
    named = folder is not None and any((folder / file).exists() for file in ("train.txt", "val.txt"))
    names = (*source.names, *source.unlabelled) if named else source.names
    parts = hold_out(names, seed=seed, folder=folder, validation=validation)
    training, held_out = (tuple(index for index in part if index < len(source)) for part in parts)
    for part, file in ((training, "train.txt"), (held_out, "val.txt")):
        if not part:
            raise UserError(f"{file} in {folder} names no pair with a label; name some of labelled.txt there")
    return training, held_out


def _size(pair: Pair) -> tuple[int, int]:
    """Read the height and width of a pair off the head of a file that has been checked."""
    with Image.open(pair.first) as image:
        return image.height, image.width
