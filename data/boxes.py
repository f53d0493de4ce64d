"""Text files with the boxes of objects, one file for each pair, in the form of YOLO."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from .pair_batch import Objects

_ROUNDING = 0.1  # pixels; values of few decimals put a box that ends at the border so far over it


def find_boxes(root: Path, names: Sequence[str]) -> list[Path]:
    """Find the box file of each pair: `boxes/NAME.txt`, or `labels/NAME.txt` where there is no folder `boxes`.

    Raises:
        UserError: If there is no folder of boxes, or a pair has no file in it.
    """
    folder = root / "boxes" if (root / "boxes").is_dir() else root / "labels"
    files = {path.stem: path for path in folder.glob("*.txt")}
    if not files:
        raise UserError(f"{root} has no labels for detection: give boxes/NAME.txt and classes.txt")
    missing = [name for name in names if name not in files]
    if missing:
        raise UserError(
            f"the pair {missing[0]} has no boxes ({len(missing)} of {len(names)} pairs have none); "
            f"add {folder / missing[0]}.txt, an empty file where there is no object"
        )
    return [files[name] for name in names]


def read_boxes(path: Path, classes: int, *, height: int, width: int) -> tuple[Objects, int]:
    """Read the boxes of one image from lines `class cx cy w h`: a class id, centre and size relative to the image.

    A box that reaches over the border of the image is clipped to it.

    Args:
        path: The text file; it is empty for an image without objects, and empty lines are skipped.

    Returns:
        The objects, and the number of boxes that were clipped by more than a tenth of a pixel.

    Raises:
        UserError: If the file cannot be read, a line does not have this form or has a value that is not finite, a
            class is unknown, or a box has no area in the image.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the boxes {path}; write lines of 'class cx cy w h'") from error
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    values = np.array([_parse(path, number, line) for number, line in filled], np.float64).reshape(-1, 5)

    def refuse(bad: NDArray[np.bool_] | np.bool_, what: str) -> None:
        if bad.any():
            raise UserError(f"{path}, line {filled[int(bad.argmax())][0]}: {what}")

    refuse(~np.isfinite(values).all(axis=1), "a value is not finite; correct or remove the line")
    ids, centres, sizes = values[:, 0], values[:, 1:3], values[:, 3:5]
    unknown = (ids != np.floor(ids)) | (ids < 0) | (ids >= classes)
    refuse(unknown, f"the class is none of 0 to {classes - 1} of classes.txt; correct it or add the class's name there")
    refuse((sizes <= 0).any(axis=1), "the box has no area; give it a positive width and height or remove the line")
    extent = np.array([width, height, width, height], np.float64)
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1) * extent  # (K, 4)
    inside = np.clip(corners, 0, extent)
    boxes = inside.astype(np.float32)
    refuse(
        (boxes[:, 2:] <= boxes[:, :2]).any(axis=1),
        "the box has no area within the image; write centre and size as fractions of the image, from 0 to 1, "
        "or remove the line",
    )
    clipped = int((np.abs(corners - inside) > _ROUNDING).any(axis=1).sum())
    return Objects(torch.from_numpy(boxes), torch.from_numpy(ids.astype(np.int64))), clipped


def write_boxes(path: Path, objects: Objects, *, height: int, width: int, scores: Tensor | None = None) -> None:
    """Write a file that `read_boxes` reads; or with scores a file of detections, which `read_boxes` refuses.

    Args:
        scores: Scores (K,) in [0, 1] at the ends of the lines; None if the boxes are no detections.

    Raises:
        UserError: If the file cannot be written.
    """
    corners = objects.boxes.double() / torch.tensor([width, height, width, height])
    columns = [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]]
    rows = torch.cat(columns if scores is None else [*columns, scores.double()[:, None]], dim=1).tolist()
    lines = [
        f"{kind} " + " ".join(f"{value:.8f}" for value in row) + "\n"
        for kind, row in zip(objects.classes.tolist(), rows, strict=True)
    ]
    write_atomically(path, "".join(lines).encode())


def _parse(path: Path, number: int, line: str) -> list[float]:
    try:
        values = [float(field) for field in line.split()]
    except ValueError:
        values = []
    if len(values) != 5:
        raise UserError(f"{path}, line {number}: {line.strip()[:40]!r} is no box; write 'class cx cy w h' as numbers")
    return values
