"""Networks on images of any size in bounded memory: tile by tile, with the output of the whole image.

Tiles overlap by the distance over which a network looks, so that nothing is blended. What a network averages over the
whole image (see `GlobalMean`) is put together from the tiles first, one such mean after the other.
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
    """A piece of an image.

    Attributes:
        area: What becomes of it, in the image.
        surroundings: What a network has to see for that, in the image.
        crop: The area within the surroundings.
    """

    area: Area
    surroundings: Area
    crop: Area


def plan_tiles(height: int, width: int, *, margin: int, multiple: int, pixels: int) -> list[Tile]:
    """Divide an image into about square tiles of one size, row by row.

    Args:
        height: Of the image, in pixels, at least 1.
        width: Of the image, in pixels, at least 1.
        margin: How far surroundings reach beyond the area, in pixels, where the image goes on.
        multiple: Areas and surroundings start at multiples of this many pixels, and end there but for the image's end.
        pixels: How many pixels surroundings may have; areas are never made smaller than four margins, though.

    Returns:
        The tiles; one, if the image has no more than `pixels` pixels.
    """
    if height * width <= pixels:
        whole = slice(0, height), slice(0, width)
        return [Tile(whole, whole, whole)]
    margin = _up(margin, multiple)
    side = max(math.isqrt(pixels) - 2 * margin, 4 * margin, multiple)
    rows, columns = _spans(height, side, margin, multiple), _spans(width, side, margin, multiple)
    return [
        Tile((row.area, column.area), (row.surroundings, column.surroundings), (row.crop, column.crop))
        for row in rows
        for column in columns
    ]


class _Span(NamedTuple):
    """A tile along one axis."""

    area: slice
    surroundings: slice
    crop: slice


def _spans(length: int, side: int, margin: int, multiple: int) -> list[_Span]:
    step = _up(math.ceil(length / math.ceil(length / side)), multiple)
    spans = []
    for start in range(0, length, step):
        stop, first, last = min(start + step, length), max(start - margin, 0), min(start + step + margin, length)
        spans.append(_Span(slice(start, stop), slice(first, last), slice(start - first, stop - first)))
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
        network: Maps images (N, 1, H, W) to one of the same shape.
        tiles: As `plan_tiles` makes them with the network's receptive field as margin.
        read: Gives the inputs of an area.
        write: Takes the output (N, 1, h, w) of an area.
    """
    if len(tiles) == 1:
        write(tiles[0].area, network(*read(tiles[0].area)))
        return
    means = _WholeMeans()
    hooks = [
        module.register_forward_hook(means.answer) for module in network.modules() if isinstance(module, GlobalMean)
    ]
    try:
        while True:
            for tile in tiles:
                images = read(tile.surroundings)
                means.start(tile, images[0])
                with suppress(_UnknownMeanError):
                    write(tile.area, network(*images)[..., tile.crop[0], tile.crop[1]])
            if not means.learn():
                return
    finally:
        for hook in hooks:
            hook.remove()


class _UnknownMeanError(Exception):
    """A network asked for a mean of the whole image that is still being put together."""


class _WholeMeans:
    """Answers the means that a network asks for, in the order of asking, with those of the whole image."""

    def __init__(self) -> None:
        self.known: list[Tensor] = []
        self.total: Tensor | None = None
        self.pixels = 0

    def start(self, tile: Tile, image: Tensor) -> None:
        """Take note of the tile that the network is going to be run on."""
        self.tile, self.shape = tile, image.shape
        self.asked = 0

    def learn(self) -> bool:
        """Conclude a pass over all tiles; tell whether it brought a mean, so that there has to be another one."""
        if self.total is None:
            return False
        self.known.append((self.total / self.pixels).float())
        self.total, self.pixels = None, 0
        return True

    def answer(self, module: nn.Module, maps: tuple[Tensor, ...], mean: Tensor) -> Tensor:
        """Replace the mean over a tile by that over the image, or add the tile's share to it and stop the network."""
        self.asked += 1
        if self.asked <= len(self.known):
            return self.known[self.asked - 1]
        rows, columns = (self._scaled(axis, maps[0].shape[axis]) for axis in (-2, -1))
        for x in maps:
            share = x[..., rows, columns].sum((2, 3), keepdim=True, dtype=torch.float64)
            self.total = share if self.total is None else self.total + share
        self.pixels += maps[0][0, 0, rows, columns].numel()
        raise _UnknownMeanError

    def _scaled(self, axis: int, length: int) -> slice:
        """Find the tile's area in maps that are smaller, and that hold what the network adds to the image's end."""
        crop, size = self.tile.crop[axis], self.shape[axis]
        # Halved some times; of a network's parts, one may pad the tile to another multiple than the next.
        scale = 1 << (math.ceil(size / length) - 1).bit_length()
        return slice(crop.start // scale, length if crop.stop == size else crop.stop // scale)
