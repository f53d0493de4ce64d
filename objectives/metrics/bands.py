"""Work on large pictures in horizontal bands, so that intermediate results fit into a CPU's cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

_SMALLEST = 16
_CPU_ELEMENTS, _GPU_ELEMENTS = 2**18, 2**25  # of one intermediate result


def row_bands(rows: int, row_elements: int, device: torch.device) -> Iterator[slice]:
    """Yield slices of consecutive rows, in bands of a size that suits a device."""
    elements = _CPU_ELEMENTS if device.type == "cpu" else _GPU_ELEMENTS
    size = max(_SMALLEST, elements // row_elements // _SMALLEST * _SMALLEST)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def band_sum(maps: Tensor) -> Tensor:
    """Sum over rows and columns, in single precision along a row and in double precision over the rows.

    Args:
        maps: Terms >= 0 (others would lose precision by cancellation), (h, S, N, W) float32.

    Returns:
        (S, N) float64.
    """
    return maps.sum(-1).sum(0, dtype=torch.float64)
