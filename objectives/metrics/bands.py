"""Working through large pictures in horizontal bands, so that intermediate results stay in a CPU's cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

_SMALLEST = 16
_CPU_ELEMENTS, _GPU_ELEMENTS = 2**18, 2**25  # of one intermediate result


def row_bands(rows: int, row_elements: int, device: torch.device) -> Iterator[slice]:
    """Cut rows into bands of about the size that suits a device.

    Args:
        rows: Number of rows of the result.
        row_elements: How many values one row of the largest intermediate result has.
        device: Where the work is done.

    Yields:
        Slices of consecutive rows that cover all of them once.
    """
    elements = _CPU_ELEMENTS if device.type == "cpu" else _GPU_ELEMENTS
    size = max(_SMALLEST, elements // row_elements // _SMALLEST * _SMALLEST)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def band_sum(maps: Tensor) -> Tensor:
    """Sum over rows and columns, in single precision along a row and in double precision over the rows.

    Args:
        maps: (h, S, N, W) float32, of terms that are not negative (else too much would cancel).

    Returns:
        (S, N) float64.
    """
    return maps.sum(-1).sum(0, dtype=torch.float64)
