"""What is labelled in an image: boxes with classes, and a batch of pairs that carries them or class masks along."""

from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = 255
"""The value of mask pixels that belong to no class and count nowhere."""


class Objects(NamedTuple):
    """The objects in one image.

    Attributes:
        boxes: (K, 4) float32, left, top, right, bottom in pixels, inside the image, of positive area.
        classes: (K,) int64, positions in the class names of the data set.
    """

    boxes: Tensor
    classes: Tensor

    def to(self, device: torch.device | str) -> "Objects":
        """Move both to a device."""
        return Objects(self.boxes.to(device), self.classes.to(device))


class LabelledBatch(NamedTuple):
    """A batch of aligned luma images in [0, 1] with what is known of them.

    Attributes:
        first: (N, 1, H, W) float32.
        second: (N, 1, H, W) float32.
        objects: Of each image; None where the data set is used for its masks.
        masks: (N, H, W) int64, a class for each pixel or `IGNORED`; None where it is used for its boxes.
    """

    first: Tensor
    second: Tensor
    objects: tuple[Objects, ...] | None = None
    masks: Tensor | None = None

    def to(self, device: torch.device | str) -> "LabelledBatch":
        """Move everything to a device."""
        objects = None if self.objects is None else tuple(each.to(device) for each in self.objects)
        masks = None if self.masks is None else self.masks.to(device)
        return LabelledBatch(self.first.to(device), self.second.to(device), objects, masks)
