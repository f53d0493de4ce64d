"""Runs networks on images of any size in bounded memory: tile by tile, with the output of the whole image.

Tiles overlap by the receptive field of the network, so that no pixels are blended. Means over the whole image (see
`GlobalMean`) are computed over all tiles first, one mean after the other.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..operators.pooling import GlobalMean

Area = tuple[slice, slice]  # rows, columns


class Tile(NamedTuple):
    """A part of an image, in pixels.

    Attributes:
        area: Part of the output that the tile computes.
        surroundings: Part of the inputs that the area depends on.
        crop: Position of the area within the surroundings.
    """

    area: Area
    surroundings: Area
    crop: Area


def plan_tiles(height: int, width: int, *, margin: int, multiple: int, pixels: int) -> list[Tile]:
    """Divide an image into nearly square tiles of the same size, row by row.

    Args:
        margin: Distance in pixels by which surroundings exceed the area within the image.
        multiple: Number of pixels; areas and surroundings start and end at multiples of it, or at the end of the image.
        pixels: Number of pixels in the surroundings; it is exceeded where areas would be smaller than four margins.
    """
    if height * width <= pixels:
        whole = slice(0, height), slice(0, width)
        return [Tile(whole, whole, whole)]
    margin = _up(margin, multiple)
    side = max(math.isqrt(pixels) - 2 * margin, 4 * margin, multiple)
    rows, columns = (_spans(length, side, margin, multiple) for length in (height, width))
    return [Tile(*zip(row, column, strict=True)) for row in rows for column in columns]


def _spans(length: int, side: int, margin: int, multiple: int) -> list[tuple[slice, slice, slice]]:
    """Compute area, surroundings and crop of the tiles along one axis; see `Tile`."""
    step = _up(math.ceil(length / math.ceil(length / side)), multiple)
    spans = []
    for start in range(0, length, step):
        stop, first, last = min(start + step, length), max(start - margin, 0), min(start + step + margin, length)
        spans.append((slice(start, stop), slice(first, last), slice(start - first, stop - first)))
    return spans


def _up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


@torch.inference_mode()
def run_tiles(
    network: nn.Module,
    tiles: Sequence[Tile],
    read: Callable[[Area], tuple[Tensor, ...]],
    write: Callable[[Area, Tensor], None],
) -> None:
    """Run a network on every tile of an image.

    Args:
        network: A network that maps images (N, 1, H, W) to one of the same shape.
        tiles: The tiles by `plan_tiles`, whose margin is the receptive field of the network.
        read: Returns the inputs of the network for an area.
        write: Receives the output (N, 1, h, w) for an area.
    """
    if len(tiles) == 1:
        write(tiles[0].area, network(*read(tiles[0].area)))
        return
    means = _WholeMeans()
    hooks = [
        module.register_forward_hook(means.replace) for module in network.modules() if isinstance(module, GlobalMean)
    ]
    try:
        while True:
            for tile in tiles:
                images = read(tile.surroundings)
                means.start(tile, images[0])
                with suppress(_UnknownMeanError):
                    write(tile.area, network(*images)[..., tile.crop[0], tile.crop[1]])
            if not means.finish_pass():
                return
    finally:
        for hook in hooks:
            hook.remove()


class _UnknownMeanError(Exception):
    """A network needs a mean over the whole image that is not known yet."""


class _WholeMeans:
    """Replaces the means over a tile by those over the whole image, in the order in which a network computes them."""

    def __init__(self) -> None:
        self.known: list[Tensor] = []
        self.total: Tensor | None = None  # of the next mean, over the tiles so far
        self.pixels = 0

    def start(self, tile: Tile, image: Tensor) -> None:
        """Start the run of the network on a tile."""
        self.tile, self.shape = tile, image.shape
        self.calls = 0

    def finish_pass(self) -> bool:
        """Finish a pass over all tiles, and tell whether it computed another mean, so that another pass follows."""
        if self.total is None:
            return False
        self.known.append((self.total / self.pixels).float())
        self.total, self.pixels = None, 0
        return True

    def replace(self, module: nn.Module, maps: tuple[Tensor, ...], mean: Tensor) -> Tensor:
        """Return the mean over the image if it is known; else add the sum over the tile to it and stop the network."""
        self.calls += 1
        if self.calls <= len(self.known):
            return self.known[self.calls - 1]
        rows, columns = (self._scaled(axis, maps[0].shape[axis]) for axis in (-2, -1))
        for x in maps:
            part = x[..., rows, columns].sum((2, 3), keepdim=True, dtype=torch.float64)
            self.total = part if self.total is None else self.total + part
        self.pixels += maps[0][0, 0, rows, columns].numel()
        raise _UnknownMeanError

    def _scaled(self, axis: int, length: int) -> slice:
        """Find the area of the tile in maps that are smaller, and that may be padded at the end of the image."""
        crop, size = self.tile.crop[axis], self.shape[axis]
        # The maps are halved some times, and parts of a network pad to different multiples.
        scale = 1 << (math.ceil(size / length) - 1).bit_length()
        return slice(crop.start // scale, length if crop.stop == size else crop.stop // scale)
