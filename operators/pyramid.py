"""The pyramid network: features at several sizes, and heads that weigh the frequency bands of both sources."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation import PReLU
from .borders import padded, repeated
from .cells import CELLS, OperatorBuilder, StageCell, size_multiple
from .sampling import shuffled, unshuffled

LevelCell = tuple[int, str, Sequence[str]]  # level, kind of cell, ids of its operators

_START = 0.1
"""Scale of the offsets, and of the fresh weights of heads, so that networks start near a plain pyramid fusion."""


class PyramidNetwork(nn.Module):
    """An encoder and decoder on both sources, with a head for each frequency band, for any H and W.

    Level i has features at 1 / 2^(i+1) of the height and width. The sources are divided into bands, the differences of
    means over blocks of 2^i and 2^(i+1) pixels, and a base, the means of the coarsest blocks. The head of level i
    computes three maps u, l and o, and the fused band is (1 + u) b_larger + l b_smaller + o / 10, with b_larger the
    band value of larger magnitude of the two sources at each pixel; with the head "sources", a fourth map s adds
    s (b_first - b_second) / 2, so that a whole region can be taken from one source. The base of the fused image is
    (1/2 + u) A + (1/2 + l) B + o / 10. It starts near the fusion by a Laplacian pyramid, and where the finest levels
    have no features, it remains one there.

    Args:
        channels: Number of feature maps of each level, from the finest to the coarsest; 0 for finest levels without.
        cells: Level, kind and operator ids of each cell; the input of a cell that is no stage is added to its output.
        norm: Normalisation of the cells, "batch", "group" or "none".
        head: Kind of the heads, "bands" or "sources".

    Attributes:
        multiple: Number of pixels to whose multiples heights and widths are padded.

    Example:
        >>> cells = [(1, "successive", ["identity"])]
        >>> network = PyramidNetwork((8, 12), cells, "none", "bands", lambda *_: nn.Identity())
        >>> network(*torch.zeros(2, 1, 1, 30, 50)).shape
        torch.Size([1, 1, 30, 50])
    """

    def __init__(
        self, channels: Sequence[int], cells: Sequence[LevelCell], norm: str, head: str, build: OperatorBuilder
    ) -> None:
        super().__init__()
        self.multiple = size_multiple(len(channels), [(level, kind) for level, kind, _ in cells])
        self.featureless = sum(maps == 0 for maps in channels)  # finest levels without features
        channels = channels[self.featureless :]
        self.stem = nn.Sequential(repeated(8, channels[0]), PReLU())
        pairs = list(pairwise(channels))  # a level and the next coarser one
        self.downs = nn.ModuleList(_Down(fine, coarse) for fine, coarse in pairs)
        self.ups = nn.ModuleList(nn.Conv2d(coarse, fine, 1, bias=False) for fine, coarse in pairs)
        self.levels = [level - self.featureless for level, _, _ in cells]  # among those with features
        self.cells = nn.ModuleList(
            CELLS[kind](channels[level], names, norm, build)
            for level, (_, kind, names) in zip(self.levels, cells, strict=True)
        )
        weights = 4 if head == "sources" else 3
        self.heads = nn.ModuleList(repeated(maps, 4 * weights) for maps in channels)
        self.base = repeated(channels[-1], 3)
        with torch.no_grad():
            for last in (*self.heads, self.base):
                last.weight.mul_(_START)
                last.bias.zero_()

    def forward(
        self, first: Tensor, second: Tensor, probabilities: Tensor | None = None, *, attention: Tensor | None = None
    ) -> Tensor:
        """Fuse two aligned luma images.

        Args:
            first: First source, (N, 1, H, W), in [0, 1].
            second: Second source, (N, 1, H, W), in [0, 1].
            probabilities: Those of the candidates of a supernet, (cells, steps, candidates).
            attention: Where objects are, (N, 1, H, W), in [0, 1]. It multiplies the features before each head by
                1 + attention.

        Returns:
            The fused image (N, 1, H, W), not clipped.
        """
        height, width = first.shape[-2:]
        means = [padded(torch.cat((first, second), 1), self.multiple)]  # of blocks of 2^i pixels, (N, 2, H/2^i, W/2^i)
        for _ in range(self.featureless + len(self.heads)):
            means.append(F.avg_pool2d(means[-1], 2))
        features = self._decoded(self._encoded(means[self.featureless :]), probabilities)
        if attention is not None:
            weights = 1 + padded(attention, self.multiple)
            features = [
                x * F.avg_pool2d(weights, 2 ** (level + 1)) for level, x in enumerate(features, self.featureless)
            ]
        upper, lower, offset = self.base(features[-1]).split(1, 1)
        a, b = means[-1].split(1, 1)
        fused = (0.5 + upper) * a + (0.5 + lower) * b + _START * offset
        for level in reversed(range(self.featureless + len(features))):
            bands = means[level] - _doubled(means[level + 1])
            if level < self.featureless:
                fused = _doubled(fused) + _larger(bands)
            else:
                maps = self.heads[level - self.featureless](features[level - self.featureless])
                fused = _doubled(fused) + _fused_band(shuffled(maps, 2), bands)  # maps of the size of the bands
        return fused[..., :height, :width]

    def _encoded(self, means: Sequence[Tensor]) -> list[Tensor]:
        """Compute the features of each level from the sources, from fine to coarse."""
        x = self.stem(unshuffled(means[0], 2).contiguous(memory_format=torch.channels_last))
        features = [x]
        for down, sources in zip(self.downs, means[2:], strict=True):
            x = down(x, sources.contiguous(memory_format=torch.channels_last))
            features.append(x)
        return features

    def _decoded(self, features: list[Tensor], probabilities: Tensor | None) -> list[Tensor]:
        """Run the cells of each level, from coarse to fine, and add the features of the coarser level."""
        decoded: list[Tensor] = []
        for level in reversed(range(len(features))):
            x = features[level]
            if decoded:
                x = x + F.interpolate(self.ups[level](decoded[0]), scale_factor=2, mode="nearest")
            for index, (own, cell) in enumerate(zip(self.levels, self.cells, strict=True)):
                if own == level:
                    y = cell(x, None if probabilities is None else probabilities[index])
                    x = y if isinstance(cell, StageCell) else x + y
            decoded.insert(0, x)
        return decoded


class _Down(nn.Module):
    """Halve height and width of feature maps, and add what a convolution finds in the sources at that size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.features = repeated(inputs, outputs, stride=2)
        self.sources = repeated(2, outputs)
        self.activation = PReLU()

    # (N, inputs, 2H, 2W), (N, 2, H, W) and perhaps features to add, (N, outputs, H, W) -> (N, outputs, H, W)
    def forward(self, x: Tensor, sources: Tensor, stem: Tensor | None = None) -> Tensor:
        features = self.features(x) + self.sources(sources)
        return self.activation(features if stem is None else features + stem)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _larger(bands: Tensor) -> Tensor:
    """Take the band value of larger magnitude of both sources at each pixel, from (N, 2, H, W) to (N, 1, H, W)."""
    a, b = bands.split(1, 1)
    total = a + b
    # The larger value minus the smaller one is |a - b| with the sign of a + b; a choice by a mask is slower on a CPU.
    return (total + (a - b).abs() * total.sign()) * 0.5


def _fused_band(maps: Tensor, bands: Tensor) -> Tensor:
    """Weigh the band values of both sources, (N, 2, H, W), by the maps u, l, o and perhaps s, to (N, 1, H, W)."""
    upper, lower, offset, *sides = maps.split(1, 1)
    larger, total = _larger(bands), bands.sum(1, keepdim=True)
    fused = larger.addcmul(upper, larger).addcmul(lower, total - larger).add(offset, alpha=_START)
    for side in sides:
        first, second = bands.split(1, 1)
        fused = fused.addcmul(side, first - second, value=0.5)
    return fused
