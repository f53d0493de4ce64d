"""The boxes of a data set, in whichever of the usual forms its label files have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .boxes import ReadBoxes, read_boxes
from .class_names import check_class_names, find_class_names, read_class_names
from .layouts import BOXES, divided, find_files
from .pair_batch import Objects
from .voc import read_voc, voc_boxes

_NOTHING = ReadBoxes(Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))


@dataclass(frozen=True)
class BoxFiles:
    """The files with the boxes of a data set's pairs.

    Attributes:
        layouts: The layouts of boxes that the data set has, such as "labels/NAME.txt"; the first is read.
        files: The file of each pair, None for a pair without one; for COCO the files of all pairs.
        classes: Names of the classes; empty if the label files have them.
    """

    root: Path
    names: tuple[str, ...]
    layouts: tuple[str, ...]
    files: tuple[Path | None, ...]
    classes: tuple[str, ...]

    def read(self, sizes: Sequence[tuple[int, int]], progress: Progress) -> tuple[tuple[str, ...], tuple[Objects, ...]]:
        """Read and check all boxes.

        Args:
            sizes: Height and width of each pair.
            progress: Shows which pairs have no label, and what was done to boxes.

        Returns:
            The names of the classes, and the objects of each pair.

        Raises:
            UserError: If a file cannot be read or has a wrong box, or a class is unknown; see `read_boxes`, `read_voc`
                and `read_coco`.
        """
        read = {".txt": self._yolo, ".xml": self._voc, ".json": self._coco}[Path(self.layouts[0]).suffix]
        classes, boxes = read(sizes)
        for line in self._remarks(boxes):
            progress.print(line)
        return classes, tuple((each or _NOTHING).objects for each in boxes)

    def _yolo(self, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[str, ...], list[ReadBoxes | None]]:
        return self.classes, [
            None if file is None else read_boxes(file, len(self.classes), height=height, width=width)
            for file, (height, width) in zip(self.files, sizes, strict=True)
        ]

    def _voc(self, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[str, ...], list[ReadBoxes | None]]:
        files = [None if file is None else read_voc(file) for file in self.files]
        classes = self.classes or tuple(sorted({name for file in files if file for name in file.names}))
        if not classes:
            raise UserError(f"no file of {self.root / self.layouts[0]} has an object; name the classes in classes.txt")
        check_class_names(classes, str(self.root / self.layouts[0]))
        return classes, [
            None if file is None else voc_boxes(file, classes, height=height, width=width)
            for file, (height, width) in zip(files, sizes, strict=True)
        ]

    def _coco(self, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[str, ...], list[ReadBoxes | None]]:
        from .coco import read_coco  # here, because pydantic takes long to import

        classes, boxes = read_coco([file for file in self.files if file], self.names, sizes)
        if not any(boxes):
            raise UserError(
                f"no pair in {self.root}, such as {self.names[0]}, has an image in {self.layouts[0]}; name the images "
                "there like those of the pairs"
            )
        return classes, boxes

    def _remarks(self, boxes: Sequence[ReadBoxes | None]) -> list[str]:
        """Say what users have to know about the boxes."""
        lines = []
        if len(self.layouts) > 1:
            lines.append(f"{self.root} has boxes as {' and as '.join(self.layouts)}; {self.layouts[0]} are read")
        read = [each for each in boxes if each]
        if len(read) < len(boxes):
            label = f"image in {self.layouts[0]}" if self.layouts[0].endswith(".json") else "label file"
            lines.append(
                f"{len(boxes) - len(read)} of {len(boxes)} pairs in {self.root} have no {label} and are taken to show "
                "no object"
            )
        for counts, what, done in (
            ([each.clipped for each in read], "boxes", "reach over the border of their image; they were clipped to it"),
            ([each.polygons for each in read], "polygons", "are read as the boxes around them"),
            ([each.crowds for each in read], "crowds", "(iscrowd) are left out"),
        ):
            if any(counts):
                pairs = sum(map(bool, counts))
                lines.append(f"{sum(counts)} {what} of {pairs} pairs in {self.root} {done}")
        return lines


def find_boxes(root: Path, names: Sequence[str]) -> BoxFiles:
    """Find the boxes of a data set's pairs in the first of these forms that has any, also in parts called `train`.

    - YOLO, `boxes/NAME.txt` or `labels/NAME.txt`, with the names of the classes in `classes.txt` in the data set or
      beside the files, or in `data.yaml`; see `read_boxes`.
    - Pascal VOC, `annotations/NAME.xml` or `annotation/NAME.xml`. If there are no names of classes as for YOLO, they
      are those of the files in alphabetical order; see `read_voc`.
    - COCO, `annotations/*.json`, or `annotations/instances_*.json` alone where there are such, with the names of the
      classes in the order of their ids; see `read_coco`.

    A pair without a label file shows no object.

    Raises:
        UserError: If there are no boxes, no label file belongs to a pair, a pair has two, or the names of the classes
            are missing or cannot be read.
    """
    present: dict[str, tuple[Path | None, ...]] = {}
    foreign = ""
    for pattern, suffix in BOXES:
        for part in (pattern, *(first for first, _ in divided((pattern, pattern), "train"))):
            found = find_files(root, part, (suffix,))
            if suffix == ".json":
                present |= {f"{part.replace('NAME', '*')}.json": _coco_files(found)} if found else {}
                continue
            files = tuple(_only(found[name]) if name in found else None for name in names)
            if any(files):
                present[part + suffix] = files
            elif found:
                foreign = foreign or str(next(iter(found.values()))[0])
    if not present and foreign:
        raise UserError(f"{foreign} and the files beside it have no pair's name, such as {names[0]}; rename them")
    if not present:
        raise UserError(
            f"{root} has no labels for detection: give boxes/NAME.txt and classes.txt (YOLO), annotations/NAME.xml "
            "(Pascal VOC) or annotations/*.json (COCO)"
        )
    layout, files = next(iter(present.items()))
    classes: tuple[str, ...] = ()
    if not layout.endswith(".json"):
        named = find_class_names(root, next(file for file in files if file).parent)
        if named is not None or layout.endswith(".txt"):
            classes = read_class_names(named or root / "classes.txt")
    return BoxFiles(root, tuple(names), tuple(present), files, classes)


def _coco_files(found: dict[str, list[Path]]) -> tuple[Path, ...]:
    """Choose the files with boxes among those that COCO has beside them, such as captions."""
    files = sorted(path for paths in found.values() for path in paths)
    return tuple(path for path in files if path.name.startswith("instances_")) or tuple(files)


def _only(files: Sequence[Path]) -> Path:
    if len(files) > 1:
        raise UserError(f"{files[0]} and {files[1]} are label files of one pair; keep one of them")
    return files[0]
