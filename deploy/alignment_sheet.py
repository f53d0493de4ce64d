"""The picture of an alignment: checkerboards of both images of pairs, before and after."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data import Alignment, Pair, luma
from ..data.images import Pixels
from ..runtime.errors import printable
from .comparison_rows import Row
from .comparison_sheet import sheet_of_rows

_FIELDS = 8  # of a checkerboard along its width
_CONTRAST = 1, 99  # percentiles that become black and white
_PAPER = 255


def alignment_sheet(aligned: Iterable[tuple[Pair, Alignment]]) -> Image.Image:
    """Draw two checkerboards for each pair, whose fields show the first and the second image in turn.

    An edge that both images show goes on from field to field where they are aligned. Before, the first image is only
    brought to the size of the second one, or the other way round; after, the common part stands at its place.

    Args:
        aligned: Pairs of files, at least one, each with its transform.

    Raises:
        UserError: If a file cannot be read, or has not the size that the transform is for.
    """
    return sheet_of_rows(["before", "aligned"], (_row(*each) for each in aligned))


def _row(pair: Pair, alignment: Alignment) -> Row:
    images = pair.read()
    aligned = alignment.apply(*images)
    left, top, right, bottom = alignment.common
    grey = [_grey(image) for image in images]
    width, height = alignment.frame
    before = [np.asarray(Image.fromarray(image).resize((width, height))) for image in grey]
    after = np.full((height, width), _PAPER, np.uint8)
    boards = [_grey(image) for image in aligned]
    field = max(1, width // _FIELDS)
    rows, columns = np.indices((height, width)) // field
    even = (rows + columns) % 2 == 0
    after[top:bottom, left:right] = np.where(even[top:bottom, left:right], *boards)
    return Row(printable(pair.name), (np.where(even, *before), after), ())


def _grey(image: Pixels) -> NDArray[np.uint8]:
    """Compute luma of 8 bits with the contrast stretched, so that edges of dark images show."""
    grey = luma(image).astype(np.float64)
    low, high = np.percentile(grey, _CONTRAST)
    stretched: NDArray[np.uint8] = ((grey - low) / max(high - low, 1) * 255).clip(0, 255).astype(np.uint8)
    return stretched
