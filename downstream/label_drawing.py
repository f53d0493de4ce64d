"""Drawing of labels and detections into an image: boxes with their names, and tinted classes."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..data.pair_batch import IGNORED, Objects
from .task_network import Detections

COLOURS = ((230, 85, 0), (0, 150, 115), (0, 114, 178), (204, 60, 160), (240, 200, 20), (90, 180, 233), (120, 90, 60))
"""Colours of the classes in turn; the background of a mask has none."""
SHOWN_SCORE = 0.3  # least score of a detection that is drawn
_SMALLEST_TEXT = 10  # height in pixels; smaller letters cannot be read
_LINES = 40  # lines of text in the height or width of a larger image
_BRIGHT = 150  # mean of a colour above which black is easier to read than white


def with_labels(
    image: NDArray[np.uint8], labels: Objects | Detections | Tensor, classes: Sequence[str] | None = None
) -> NDArray[np.uint8]:
    """Draw boxes, or tint the classes of a mask.

    Args:
        image: Colour image, (H, W, 3); it does not change.
        labels: Objects, detections (drawn from a score of 0.3 on), or a mask (H, W).
        classes: Names to write at the boxes, with the scores of detections, if they fit into the image; None for none.
    """
    if isinstance(labels, Tensor):
        return _tinted(image, labels.cpu().numpy())
    scores = labels.scores.tolist() if isinstance(labels, Detections) else [None] * len(labels.classes)
    canvas = Image.fromarray(image.copy())
    draw = ImageDraw.Draw(canvas)
    objects = zip(labels.boxes.tolist(), labels.classes.tolist(), scores, strict=True)
    shown = [each for each in objects if each[2] is None or each[2] >= SHOWN_SCORE]
    shown.reverse()  # the best last, over the others
    for box, kind, _ in shown:
        left, top, right, bottom = (round(side) for side in box)
        corners = (left, top, max(left, right - 1), max(top, bottom - 1))
        draw.rectangle(corners, outline=COLOURS[kind % len(COLOURS)])
    if classes is not None:
        font = ImageFont.load_default(max(_SMALLEST_TEXT, min(canvas.size) // _LINES))
        for (left, top, *_), kind, score in shown:
            text = classes[kind] if score is None else f"{classes[kind]} {score:.2f}"
            *_, right, bottom = (math.ceil(side) for side in draw.textbbox((0, 0), text, font))
            wide, high = right + 3, bottom + 2
            if wide > canvas.width or high > canvas.height:
                continue
            # Above the box, or within it where there is no room.
            x = min(round(left), canvas.width - wide)
            y = round(top) - high if round(top) >= high else min(round(top), canvas.height - high)
            colour = COLOURS[kind % len(COLOURS)]
            draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=colour)
            draw.text((x + 2, y), text, "black" if sum(colour) > 3 * _BRIGHT else "white", font)
    return np.asarray(canvas)


def _tinted(image: NDArray[np.uint8], mask: NDArray[np.integer]) -> NDArray[np.uint8]:
    palette = np.array([(0, 0, 0), *(COLOURS[kind % len(COLOURS)] for kind in range(255))], np.float32)
    labelled = (mask > 0) & (mask < IGNORED)
    tinted = image.copy()
    tinted[labelled] = (image[labelled] * np.float32(0.5) + palette[mask[labelled]] * np.float32(0.5)).round()
    return tinted
