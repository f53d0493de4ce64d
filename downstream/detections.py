"""What a detector finds in an image."""

from typing import NamedTuple

from torch import Tensor


class Detections(NamedTuple):
    """The objects that a detector finds in one image, best first.

    Attributes:
        boxes: (K, 4) float32, left, top, right, bottom in pixels, inside the image.
        scores: (K,) float32 in [0, 1].
        classes: (K,) int64, positions in the detector's class names.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
