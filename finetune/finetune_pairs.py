"""The labelled pairs of a finetuning: batches for training, whole images for validation, fused images of others."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..data import (
    LabelledBatch,
    LabelledSource,
    LabelledStream,
    Labels,
    Objects,
    Pixels,
    find_fused,
    fingerprint,
    fingerprint_files,
    labelled_batch,
    luma,
    open_labelled,
    read_pixels,
    split_labelled,
    spread,
    stream_batches,
    unit_range,
)
from ..data.masks import Mask
from ..objectives.metrics import METRICS
from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .finetune_config import DataSection

_SMALLEST = METRICS["SSIM"].smallest_side  # pixels, of an image that a fusion loss can be measured on


class FusedImages:
    """The fused images of a method in the place of both sources.

    Args:
        source: The pairs that were fused, with their labels.
        folder: An image for each pair, under its name.

    Raises:
        UserError: An image is missing, cannot be read or has another size than its pair.
    """

    def __init__(self, source: LabelledSource, folder: Path) -> None:
        self.names, self.classes, self.unlabelled = source.names, source.classes, source.unlabelled
        self._source = source
        self._files = find_fused(folder, source.names)
        with Progress(len(source), "checking fused images") as progress:
            for index in range(len(source)):
                self._image(index)
                progress.advance()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        image = self._image(index)
        return image, image

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair."""
        return self._source.size(index)

    def fingerprint(self) -> str:
        """Tell these images from all others."""
        return fingerprint((self._source.fingerprint(), fingerprint_files(self._files)))

    def objects(self, index: int) -> Objects:
        """Return the objects of a pair."""
        return self._source.objects(index)

    def mask(self, index: int) -> Mask:
        """Return the (H, W) mask of a pair."""
        return self._source.mask(index)

    def _image(self, index: int) -> Pixels:
        image, size = luma(read_pixels(self._files[index])), self._source[index][0].shape
        if image.shape != size:
            raise UserError(
                f"{self._files[index]} is {image.shape[1]}x{image.shape[0]}, its pair {size[1]}x{size[0]};"
                " fuse the pair at its own size"
            )
        return image


class TaskPairs(NamedTuple):
    """What a finetuning draws from.

    Attributes:
        source: The labelled pairs.
        fused: A method's images of them, which are learnt from in their place.
        training: Positions of the training pairs.
        validation: Positions of the validation pairs.
        streams: Batches of training crops by name: "task", and "fusion" for strategies that train the fusion network
            on batches of its own.
        labels: Which labels the batches carry.
    """

    source: LabelledSource
    fused: FusedImages | None
    training: tuple[int, ...]
    validation: tuple[int, ...]
    streams: dict[str, LabelledStream]
    labels: Labels

    def fingerprint(self) -> str:
        """Tell these pairs, and what each is for, from all others."""
        return fingerprint(((self.fused or self.source).fingerprint(), self.training, self.validation))

    def batches(self, name: str, start: int, stop: int, workers: int, device: torch.device) -> Iterator[LabelledBatch]:
        """Yield a stream's batches of steps `start` to `stop` (excluded) on a device."""
        return (batch.to(device) for batch in stream_batches(self.streams[name], start, stop, workers))

    def validation_batches(self, device: torch.device) -> Iterator[tuple[LabelledBatch, Tensor | None]]:
        """Yield each validation pair, whole, as a batch of one on a device, and a method's image of it."""
        for index in self.validation:
            image = None if self.fused is None else torch.from_numpy(unit_range(self.fused[index][0]))[None, None]
            batch = labelled_batch(self.source, index, self.labels)
            yield batch.to(device), None if image is None else image.to(device)


def open_task_pairs(
    data: DataSection, labels: Labels, seed: int, fused: Path | None = None, ranks: Ranks = ALONE
) -> TaskPairs:
    """Check every file before anything else happens, and deal out the pairs.

    Args:
        data: where pairs come from.
        labels: what to learn from, "boxes" or "masks".
        seed: the run's seed.
        fused: a method's fused images to take in the place of both sources.
        ranks: the processes that share every batch.

    Returns:
        The pairs for training and for validation.

    Raises:
        UserError: a folder or a file in it cannot be used, there are too few pairs, or they have no labels.
    """
    root = data.root and data.root.expanduser()
    source = open_labelled(
        root,
        labels,
        minimum_size=_SMALLEST,
        synthetic_pairs=data.synthetic_pairs,
        seed=seed,
        cache_megabytes=data.cache_megabytes,
    )
    training, validation = split_labelled(source, seed=seed, folder=root, validation=data.validation)
    if data.validation_pairs is not None:
        validation = spread(validation, data.validation_pairs)
    images = None if fused is None else FusedImages(source, fused)
    streams = {
        name: LabelledStream(
            source if images is None else images,
            training,
            batch_size=data.batch_size,
            crop=data.crop,
            seed=seed,
            name=name,
            scale=data.scale,
            labels=labels,
            ranks=ranks,
        )
        for name in ("task", "fusion")
    }
    return TaskPairs(source, images, training, validation, streams, labels)
