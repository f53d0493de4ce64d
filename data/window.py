"""The random square of a pair that becomes a training crop: images, masks and boxes are cut and mirrored alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .images import Pixels, unit_range
from .masks import Mask
from .pair_batch import Objects

_LEAST_SEEN = 0.25  # of an object's area


@dataclass(frozen=True)
class Window:
    """A square of an image, resized to the crop's size and perhaps mirrored: the geometry of a training sample.

    Coordinates are continuous: pixel i covers [i, i + 1].

    Attributes:
        side: Height and width of the square in pixels of the image.
        crop: Height and width of the result in pixels.
    """

    top: int
    left: int
    side: int
    crop: int
    horizontal_flip: bool = False
    vertical_flip: bool = False

    @classmethod
    def draw(
        cls,
        height: int,
        width: int,
        crop: int,
        rng: np.random.Generator,
        *,
        scale: tuple[float, float] | None = None,
        upright: bool = False,
    ) -> "Window":
        """Draw a window of an image, uniformly over all places and mirrorings.

        Args:
            crop: Height and width of the result in pixels; without `scale` the image must be at least as large.
            scale: Smallest and largest zoom factor, drawn log-uniformly; an image that is too small for the factor is
                enlarged more. None for no zoom.
            upright: Whether top and bottom stay where they are.
        """
        side = crop
        if scale is not None:
            factor = math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
            side = min(max(1, round(crop / factor)), height, width)
        top, left = rng.integers(height - side, endpoint=True), rng.integers(width - side, endpoint=True)
        horizontal, vertical = (rng.integers(2), False) if upright else rng.integers(2, size=2)
        return cls(int(top), int(left), side, crop, bool(horizontal), bool(vertical))

    def cut_images(self, images: Sequence[Pixels]) -> Tensor:
        """Cut C aligned images (H, W): (C, crop, crop) float32 in [0, 1], resampled where the window zooms."""
        cut = torch.from_numpy(np.stack([unit_range(image[self.slices]) for image in images]))
        return self.resampled(cut).clamp_(0, 1)

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and the columns of the square."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)

    def resampled(self, cut: Tensor) -> Tensor:
        """Resize and mirror planes (C, side, side) that were cut: (C, crop, crop)."""
        if self.side != self.crop:
            cut = functional.interpolate(cut[None], (self.crop, self.crop), mode="bilinear", antialias=True)[0]
        mirrored = [axis for axis, flip in ((-2, self.vertical_flip), (-1, self.horizontal_flip)) if flip]
        return cut.flip(mirrored)

    def cut_mask(self, mask: Mask) -> NDArray[np.uint8]:
        """Cut a mask (H, W): (crop, crop), each pixel with the mask's value at its centre."""
        places = ((np.arange(self.crop) + 0.5) * (self.side / self.crop)).astype(np.intp)
        rows = places[::-1] if self.vertical_flip else places
        columns = places[::-1] if self.horizontal_flip else places
        return mask[np.ix_(self.top + rows, self.left + columns)]

    def cut_objects(self, objects: Objects) -> Objects:
        """Move boxes as the pixels move, clip them, and drop objects with less than a quarter of their area left."""
        corner = torch.tensor([self.left, self.top, self.left, self.top])
        left, top, right, bottom = ((objects.boxes - corner) * (self.crop / self.side)).unbind(1)
        if self.horizontal_flip:
            left, right = self.crop - right, self.crop - left
        if self.vertical_flip:
            top, bottom = self.crop - bottom, self.crop - top
        boxes = torch.stack([left, top, right, bottom], dim=1)
        seen = boxes.clamp(0, self.crop)
        kept = _areas(seen) >= _LEAST_SEEN * _areas(boxes)
        return Objects(seen[kept], objects.classes[kept])


def _areas(boxes: Tensor) -> Tensor:
    """Areas of (K, 4) boxes; 0 for what is clipped away."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
