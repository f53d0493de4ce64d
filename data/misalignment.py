"""A quick look at whether pairs are aligned that should be."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .edge_agreement import agreement_by_shift, edge_maps, take_peak
from .images import Pixels, luma, unit_range

LOOKED_AT = 4
"""Number of pairs of a data set from which it is judged, at most."""

_SIZE = 192, 256  # height and width of the images that are compared, in pixels
_SMALLEST = 64  # height and width of an image that is judged
_OVERLAP = 0.7  # of the image, at the largest shift
_LEAST_SHIFT = 2  # pixels, 0.8 % of the width
_LEAST_DEVIATION = 5.5  # of the best agreement from the mean of all, in standard deviations; noise has about 4
_MOST_UNSHIFTED = 0.8  # of the best agreement, without a shift


def misalignment(pairs: Sequence[tuple[Pixels, Pixels]]) -> str:
    """Say by how much pairs look misaligned, from the shift at which their edges agree best; "" if they do not.

    All pairs are judged together, since one pair with few edges, or with objects at several distances, can mislead.

    Args:
        pairs: Both images of each pair, at most a few, (H, W) or (H, W, 3), uint8 or uint16.

    Example:
        >>> from timfuse.data import make_scene
        >>> scenes = [make_scene(seed, height=120, width=160) for seed in range(3)]
        >>> misalignment([(scene.first, scene.second) for scene in scenes])
        ''
        >>> misalignment([(scene.first[:, 7:], scene.second[:, :-7]) for scene in scenes])
        'the edges agree best at a shift of 7 px (in 3 pairs looked at); align the images with `timfuse align`'
    """
    if not pairs or min(side for images in pairs for image in images for side in image.shape[:2]) < _SMALLEST:
        return ""
    first, second = (edge_maps(torch.stack([_resized(image) for image in side])) for side in zip(*pairs, strict=True))
    shifts = agreement_by_shift(first, second, _OVERLAP)
    known, unshifted = shifts[shifts > -1], float(shifts[0, 0])
    if len(known) < 2:  # black borders leave little of the images
        return ""
    peak = take_peak(shifts, _SIZE, near=0)
    stands_out = peak.agreement - float(known.mean()) >= _LEAST_DEVIATION * float(known.std())
    moved = max(abs(peak.right), abs(peak.down)) >= _LEAST_SHIFT
    if not (stands_out and moved and unshifted <= _MOST_UNSHIFTED * peak.agreement):
        return ""
    height, width = pairs[0][0].shape[:2]
    pixels = round(max(abs(peak.right) * width / _SIZE[1], abs(peak.down) * height / _SIZE[0]))
    looked_at = "in the pair" if len(pairs) == 1 else f"in {len(pairs)} pairs"
    return (
        f"the edges agree best at a shift of {pixels} px ({looked_at} looked at); align the images with `timfuse align`"
    )


def _resized(image: Pixels) -> Tensor:
    """Compute luma (1, H, W) in the size that is compared."""
    grey = torch.from_numpy(np.ascontiguousarray(unit_range(luma(image))))
    return F.interpolate(grey[None, None], _SIZE, mode="bilinear", antialias=True)[0]
