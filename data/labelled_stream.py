"""The stream of labelled training batches: sources, boxes and masks are zoomed, cut and mirrored together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from ..runtime.distribution import ALONE, Ranks
from .images import Pixels, unit_range
from .labelled import LabelledSource, Labels
from .masks import Mask
from .objects import LabelledBatch, Objects
from .stream import PairOrder

_LEAST_SEEN = 0.25  # of an object's area


@dataclass(frozen=True)
class ZoomedWindow:
    """A random square of an image, brought to another size and perhaps mirrored: the geometry of a labelled sample.

    Coordinates are continuous: pixel i covers [i, i + 1].

    Attributes:
        top: First row of the square, in pixels of the image.
        left: First column of the square.
        side: Height and width of the square in pixels of the image.
        crop: Height and width that it is brought to.
        flip: Whether left and right change places.
    """

    top: int
    left: int
    side: int
    crop: int
    flip: bool

    @classmethod
    def draw(
        cls, height: int, width: int, crop: int, scale: tuple[float, float], rng: np.random.Generator
    ) -> "ZoomedWindow":
        """Draw a log-uniform zoom factor, limited so that the square fits into the image, then place and mirroring."""
        factor = math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
        side = min(max(1, round(crop / factor)), height, width)
        top, left = rng.integers(height - side, endpoint=True), rng.integers(width - side, endpoint=True)
        return cls(int(top), int(left), side, crop, bool(rng.integers(2)))

    def cut_images(self, images: Sequence[Pixels]) -> Tensor:
        """Resample what the window shows of C aligned (H, W) images to (C, crop, crop) float32 in [0, 1]."""
        rows, columns = slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)
        cut = torch.from_numpy(np.stack([unit_range(image[rows, columns]) for image in images]))
        if self.side != self.crop:
            cut = functional.interpolate(cut[None], (self.crop, self.crop), mode="bilinear", antialias=True)[0]
        return (cut.flip(-1) if self.flip else cut).clamp_(0, 1)

    def cut_mask(self, mask: Mask) -> NDArray[np.uint8]:
        """Take for each pixel of the result the mask's value at its centre: (H, W) to (crop, crop)."""
        places = ((np.arange(self.crop) + 0.5) * (self.side / self.crop)).astype(np.intp)
        columns = places[::-1] if self.flip else places
        return mask[np.ix_(self.top + places, self.left + columns)]

    def move_objects(self, objects: Objects) -> Objects:
        """Move boxes as the image is moved and clip them; those of which less than a quarter is seen are left out."""
        corner = torch.tensor([self.left, self.top, self.left, self.top])
        boxes = (objects.boxes - corner) * (self.crop / self.side)
        if self.flip:
            left, top, right, bottom = boxes.unbind(1)
            boxes = torch.stack([self.crop - right, top, self.crop - left, bottom], dim=1)
        seen = boxes.clamp(0, self.crop)
        kept = _areas(seen) >= _LEAST_SEEN * _areas(boxes)
        return Objects(seen[kept], objects.classes[kept])


class LabelledStream(Dataset[LabelledBatch]):
    """Batches of randomly zoomed crops with their labels, indexed by training step: item `step` is that step's batch.

    The order of the pairs, and how several processes share them, is that of `CropStream`. An object of which less than
    a quarter of its area lies in the crop is no object of the sample; the box of any other becomes that of the part
    that is seen.

    Args:
        source: Where pairs come from, opened for the labels that are asked for.
        indices: The positions in `source` to draw from, at least one.
        batch_size: N, pairs in a batch, a multiple of the number of `ranks`.
        crop: Height and width of the crops in pixels.
        seed: The run's seed.
        name: Name of the stream; streams of one seed and different names are independent.
        scale: Least and greatest factor by which images are enlarged, drawn log-uniformly. Where so large a part of
            an image would be shown that it does not have it, the image is enlarged more.
        labels: Which labels the batches carry.
        ranks: The processes that share every batch.
    """

    def __init__(
        self,
        source: LabelledSource,
        indices: Sequence[int],
        *,
        batch_size: int,
        crop: int,
        seed: int,
        name: str,
        scale: tuple[float, float] = (0.75, 1.33),
        labels: Labels,
        ranks: Ranks = ALONE,
    ) -> None:
        self.source = source
        self.indices = tuple(indices)
        self.crop, self.scale, self.labels, self.ranks = crop, scale, labels, ranks
        self._order = PairOrder(self.indices, batch_size=batch_size, seed=seed, name=name)

    def __getitem__(self, step: int) -> LabelledBatch:
        rng = self._order.rng("crops", step)
        images: list[Tensor] = []
        objects: list[Objects] = []
        masks: list[NDArray[np.uint8]] = []
        windows = [
            (index, ZoomedWindow.draw(*self.source.size(index), self.crop, self.scale, rng))
            for index in self._order.pairs_of(step)
        ]
        for index, window in self.ranks.share(windows):
            images.append(window.cut_images(self.source[index]))
            if self.labels == "boxes":
                objects.append(window.move_objects(self.source.objects(index)))
            else:
                masks.append(window.cut_mask(self.source.mask(index)))
        return _batch(torch.stack(images), objects, masks, self.labels)


def labelled_batch(source: LabelledSource, index: int, labels: Labels) -> LabelledBatch:
    """Make a batch of one whole pair, as validation takes it.

    Args:
        source: Holds the pair, opened for these labels.
        index: Its position.
        labels: Which labels the batch carries.

    Returns:
        The batch, of (1, 1, H, W) images.
    """
    images = torch.from_numpy(np.stack([unit_range(image) for image in source[index]]))
    if labels == "boxes":
        return _batch(images[None], [source.objects(index)], [], labels)
    return _batch(images[None], [], [source.mask(index)], labels)


def _batch(images: Tensor, objects: Sequence[Objects], masks: Sequence[Mask], labels: Labels) -> LabelledBatch:
    """Join samples whose (N, 2, H, W) images hold the first and the second source."""
    first, second = (side.contiguous() for side in images.split(1, dim=1))
    if labels == "boxes":
        return LabelledBatch(first, second, objects=tuple(objects))
    return LabelledBatch(first, second, masks=torch.from_numpy(np.stack(masks).astype(np.int64)))


def _areas(boxes: Tensor) -> Tensor:
    """Areas of (K, 4) boxes; 0 for what is clipped away."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
