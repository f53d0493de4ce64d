"""The pairs of a finetuning, and fused images of other methods that replace both sources of a pair."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..data import Objects, PairBatch, PairSource, RunPairs, luma, read_pixels
from ..data.fingerprint import fingerprint, fingerprint_files
from ..data.images import Pixels
from ..data.masks import Mask
from ..data.pairs import find_fused
from ..runtime.errors import UserError
from ..runtime.progress import Progress


class FusedImages:
    """A pair source that returns the fused image of a method as both sources of each pair.

    Args:
        folder: Folder with an image for each pair, under the pair's name.

    Raises:
        UserError: If an image is missing, cannot be read or differs in size from its pair.
    """

    def __init__(self, source: PairSource, folder: Path) -> None:
        self.names, self.labels, self.classes = source.names, source.labels, source.classes
        self.unlabelled = source.unlabelled
        self.source = source
        self._files = find_fused(folder, source.names)
        with Progress(len(source), "checking fused images") as progress:
            for index in range(len(source)):
                self._image(index)
                progress.advance()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        image = self._image(index)
        return image, image

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        """Return the image twice, with its colours."""
        image = read_pixels(self._files[index])
        return image, image

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair."""
        return self.source.size(index)

    def objects(self, index: int) -> Objects:
        """Return the objects of a pair."""
        return self.source.objects(index)

    def mask(self, index: int) -> Mask:
        """Return the (H, W) class mask of a pair."""
        return self.source.mask(index)

    def fingerprint(self) -> str:
        """Name the images and the pairs by their content."""
        return fingerprint((self.source.fingerprint(), fingerprint_files(self._files)))

    def _image(self, index: int) -> Pixels:
        image, size = luma(read_pixels(self._files[index])), self.size(index)
        if image.shape != size:
            raise UserError(
                f"{self._files[index]} is {image.shape[1]}x{image.shape[0]}, its pair {size[1]}x{size[0]};"
                " fuse the pair at its own size"
            )
        return image


def with_fused_images(pairs: RunPairs, folder: Path) -> RunPairs:
    """Replace both sources of each pair by the fused image of a method.

    Args:
        folder: Folder with an image for each pair, under the pair's name.

    Raises:
        UserError: If an image is missing or does not fit its pair, or if pairs of two data sets share a name.
    """
    names = pairs.source.names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"several pairs are called {twice}, so that {folder} cannot hold an image of each; rename them")
    return replace(pairs, sets=tuple(replace(each, source=FusedImages(each.source, folder)) for each in pairs.sets))


def validation_pairs(
    pairs: RunPairs, device: torch.device | str, colour: str | None = None
) -> Iterator[tuple[str, PairBatch, Tensor | None]]:
    """Walk the validation pairs, whole.

    Args:
        colour: The source of the colours of a batch, see `cut_crops`; a fused image has its own.

    Yields:
        The name, the sources and labels as a batch of one, and the (1, 1, H, W) fused image; None for pairs without
        one.
    """
    for each in pairs.sets:
        if not isinstance(each.source, FusedImages):
            yield from ((name, batch, None) for name, batch in each.validation_pairs(device, colour))
            continue
        sources = replace(each, source=each.source.source).validation_pairs(device)
        for (name, fused), (_, batch) in zip(each.validation_pairs(device, colour), sources, strict=True):
            yield name, batch._replace(colour=fused.colour), fused.first
