"""Text files with the boxes of objects, one file for each pair, in the form of YOLO; and the check of any boxes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from .label_text import read_label_text
from .pair_batch import Objects

_ROUNDING = 0.1  # pixels; values of few decimals put a box that ends at the border so far over it
_FARTHEST = 1e6  # pixels from the image, within which a corner is a matter of clipping and not of damage


class ReadBoxes(NamedTuple):
    """The boxes of one image, and what was done to them.

    Attributes:
        clipped: Number of boxes that reached over the border of the image by more than a tenth of a pixel.
        polygons: Number of polygons that were read as the boxes around them.
        crowds: Number of annotations of crowds that were left out.
    """

    objects: Objects
    clipped: int = 0
    polygons: int = 0
    crowds: int = 0


def read_boxes(path: Path, classes: int, *, height: int, width: int) -> ReadBoxes:
    """Read the boxes of one image from lines `class cx cy w h`: a class id, centre and size relative to the image.

    A line `class x1 y1 x2 y2 x3 y3 ...` with three or more points is a polygon, and read as the box around it. A box
    that reaches over the border of the image is clipped to it.

    Args:
        path: The text file; it is empty for an image without objects, and empty lines are skipped.

    Raises:
        UserError: If the file cannot be read, a line does not have this form or has a value that is not finite, a
            class is unknown, or a box has no area in the image.
    """
    lines = read_label_text(path, "boxes", "write lines of 'class cx cy w h'").splitlines()
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    places = [f"{path}, line {number}" for number, _ in filled]
    parsed = [_parse(place, line) for place, (_, line) in zip(places, filled, strict=True)]
    values = np.array([row for row, _ in parsed], np.float64).reshape(-1, 5)
    ids, centres, sizes = values[:, 0], values[:, 1:3], values[:, 3:5]
    unknown = (ids != np.floor(ids)) | (ids < 0) | (ids >= classes)
    _refuse(
        places,
        unknown,
        f"the class is none of 0 to {classes - 1} of the class names; correct it or add the class's name there",
    )
    no_area = (sizes <= 0).any(axis=1)
    _refuse(places, no_area, "the box has no area; give it a positive width and height or remove the line")
    with np.errstate(over="ignore"):  # of what is far outside
        extent = np.array([width, height, width, height], np.float64)
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1) * extent  # (K, 4)
    remedy = "write centre and size as fractions of the image, from 0 to 1, or remove the line"
    checked = check_boxes(places, ids, corners, height=height, width=width, remedy=remedy)
    return checked._replace(polygons=sum(polygon for _, polygon in parsed))


def check_boxes(
    places: Sequence[str], ids: ArrayLike, corners: ArrayLike, *, height: int, width: int, remedy: str
) -> ReadBoxes:
    """Check the boxes of one image, and clip them to it.

    Args:
        places: Where each of the K boxes stands, for errors.
        ids: Class of each box, (K,), a position in the class names.
        corners: Left, top, right and bottom of each box in pixels, (K, 4); the left and the upper border of the image
            are at 0.
        remedy: What to do about a wrong box, for errors.

    Raises:
        UserError: If a value is not finite or far outside the image, or a box has no area in the image.
    """
    values = np.asarray(corners, np.float64).reshape(-1, 4)
    far = ~(np.abs(values) <= _FARTHEST).all(axis=1)  # so written, it holds for NaN too
    _refuse(places, far, f"the box reaches far out of the image; {remedy}")
    inside = np.clip(values, 0, np.array([width, height, width, height]))
    boxes = inside.astype(np.float32)
    _refuse(places, (boxes[:, 2:] <= boxes[:, :2]).any(axis=1), f"the box has no area within the image; {remedy}")
    objects = Objects(torch.from_numpy(boxes), torch.from_numpy(np.asarray(ids).astype(np.int64)))
    return ReadBoxes(objects, clipped=int((np.abs(values - inside) > _ROUNDING).any(axis=1).sum()))


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


def _refuse(places: Sequence[str], bad: NDArray[np.bool_] | np.bool_, what: str) -> None:
    if bad.any():
        raise UserError(f"{places[int(bad.argmax())]}: {what}")


def _parse(place: str, line: str) -> tuple[list[float], bool]:
    """Read a class id, centre and size from a line, and tell whether it is a polygon."""
    try:
        values = [float(field) for field in line.split()]
    except ValueError:
        values = []
    polygon = len(values) >= 7 and len(values) % 2 == 1
    if len(values) != 5 and not polygon:
        raise UserError(
            f"{place}: {line.strip()[:40]!r} is no box; write 'class cx cy w h' as numbers, or 'class x1 y1 x2 y2 x3 "
            "y3 ...' for a polygon"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{place}: a value is not finite; correct or remove the line")
    if not polygon:
        return values, False
    xs, ys = values[1::2], values[2::2]
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    return [values[0], (left + right) / 2, (top + bottom) / 2, right - left, bottom - top], True
