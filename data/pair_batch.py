"""Batches of aligned pairs, with or without labels."""

from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = 255
"""The value of mask pixels that belong to no class and count nowhere."""


class Objects(NamedTuple):
    """The labelled objects in one image.

    Attributes:
        boxes: Boxes (K, 4), float32: left, top, right and bottom in pixels, inside the image and of positive area.
        classes: Class of each box, (K,) int64, a position in the class names of the data set.

    Example:
        >>> objects = Objects(torch.tensor([[4.0, 2.0, 20.0, 30.0]]), torch.tensor([0]))
        >>> objects.to("cpu").boxes.shape
        torch.Size([1, 4])
    """

    boxes: Tensor
    classes: Tensor

    def to(self, device: torch.device | str) -> "Objects":
        """Move both tensors to a device."""
        return Objects(self.boxes.to(device), self.classes.to(device))


class PairBatch(NamedTuple):
    """A batch of aligned luma images in [0, 1], with their labels where the source has any.

    Attributes:
        first: Images of the first source, (N, 1, H, W) float32.
        second: Images of the second source, (N, 1, H, W) float32.
        objects: The objects in each of the N pairs; None if the pairs have no boxes.
        masks: Class or `IGNORED` of each pixel, (N, H, W) int64; None if the pairs have no masks.
        colour: What a luma needs for the colours of the sources, (N, 3, H, W) float32; see `colour_shift`. None if it
            was not asked for.

    Example:
        >>> batch = PairBatch(torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8))
        >>> batch.to("cpu").second.mean().item(), batch.objects, batch.masks
        (1.0, None, None)
    """

    first: Tensor
    second: Tensor
    objects: tuple[Objects, ...] | None = None
    masks: Tensor | None = None
    colour: Tensor | None = None

    def to(self, device: torch.device | str) -> "PairBatch":
        """Move all tensors to a device."""
        objects = None if self.objects is None else tuple(each.to(device) for each in self.objects)
        masks = None if self.masks is None else self.masks.to(device)
        colour = None if self.colour is None else self.colour.to(device)
        return PairBatch(self.first.to(device), self.second.to(device), objects, masks, colour)
