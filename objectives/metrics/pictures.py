"""Fused pictures and their sources, with intermediate results that several metrics share."""

from functools import cached_property

import torch
from torch import Tensor

LEVELS = 256
MIDDLE = 128  # is subtracted before squaring, which reduces rounding errors


class Pictures:
    """A batch of fused pictures and their sources.

    Args:
        fused: Fused pictures, (N, 1, H, W) uint8.
        first: First sources, (K, 1, H, W) uint8, with K = N, or K = 1 for several fused pictures of one pair.
        second: Second sources, of the same shape as `first`.
        further: Third and further sources of stacks, of the same shape.

    Example:
        >>> pair = torch.zeros(2, 1, 1, 4, 4, dtype=torch.uint8)
        >>> pictures = Pictures(torch.full((3, 1, 4, 4), 7, dtype=torch.uint8), *pair)
        >>> pictures.fused_histogram.shape, pictures.fused_histogram[0, :, 7].tolist()
        (torch.Size([1, 3, 256]), [16.0, 16.0, 16.0])
    """

    def __init__(self, fused: Tensor, first: Tensor, second: Tensor, *further: Tensor) -> None:
        self.fused = fused[:, 0][None]  # (1, N, H, W)
        self.sources = torch.stack([source[:, 0] for source in (first, second, *further)])  # (2 or more, K, H, W)
        self.pixels = fused.shape[-2] * fused.shape[-1]

    @cached_property
    def rows(self) -> Tensor:
        """Grey levels minus 128, (H, 2K + N, W) float64: first sources, second sources, fused pictures.

        With the rows outermost, a filter along the columns is one matrix product for all pictures.
        """
        pictures = torch.cat((self.sources.flatten(0, 1), self.fused[0]))
        return pictures.transpose(0, 1).to(torch.float64, memory_format=torch.contiguous_format).sub_(MIDDLE)

    @cached_property
    def flat_fused(self) -> Tensor:
        """Whether each fused picture has one grey level only, (1, N) bool."""
        return _is_flat(self.fused)

    @cached_property
    def flat_sources(self) -> Tensor:
        """Whether each source has one grey level only, (2, K) bool."""
        return _is_flat(self.sources)

    @cached_property
    def fused_histogram(self) -> Tensor:
        """Histograms of the fused pictures, (1, N, 256) float64 counts."""
        return _histogram(self.fused, LEVELS)

    @cached_property
    def source_histogram(self) -> Tensor:
        """Histograms of the sources, (2, K, 256) float64 counts."""
        return _histogram(self.sources, LEVELS)

    @cached_property
    def joint_histogram(self) -> Tensor:
        """Joint histograms of sources (first level) and fused pictures, (2, N, 256, 256) float64 counts."""
        return _histogram(self.sources.int() * LEVELS + self.fused, LEVELS**2).unflatten(-1, (LEVELS, LEVELS))

    @cached_property
    def source_joint_histogram(self) -> Tensor:
        """Joint histograms of first and second sources, (1, K, 256, 256) float64 counts."""
        first, second = self.sources[:1], self.sources[1:]
        return _histogram(first.int() * LEVELS + second, LEVELS**2).unflatten(-1, (LEVELS, LEVELS))


def _is_flat(images: Tensor) -> Tensor:
    low, high = images.flatten(-2).aminmax(dim=-1)
    return low == high


def _histogram(symbols: Tensor, alphabet: int) -> Tensor:
    """Count the symbols of each picture, (..., H, W) to (..., alphabet) float64."""
    pictures = symbols.flatten(-2).flatten(0, -2).int()  # (P, HW)
    offsets = torch.arange(len(pictures), dtype=torch.int32, device=symbols.device)[:, None] * alphabet
    counts = torch.bincount((pictures + offsets).flatten(), minlength=len(pictures) * alphabet)
    return counts.double().view(*symbols.shape[:-2], alphabet)
