"""Stretching of sensor counts and temperatures, which use a small part of their range, to the full 16 bits."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import UserError
from .images import Channels, Samples, has_8_bits, read_samples

_PERCENTILES = 0.1, 99.9  # of all samples; what lies outside is clipped: dead pixels, and a spark at most
_LEAST = 2**14  # of the 65536 values of 16 bits; a sensor with 14 bits uses no more
_SAMPLES = 2**14  # of each image, from which the percentiles of a folder are computed


class Stretch(NamedTuple):
    """The values that become black and white.

    Example:
        >>> Stretch(7300, 8200)(np.array([[7000, 7300, 7750, 8200]], np.uint16))
        array([[    0,     0, 32768, 65535]], dtype=uint16)
    """

    low: float
    high: float

    def __call__(self, samples: Samples) -> NDArray[np.uint16]:
        """Map samples of any shape and type to 16 bits; those outside the limits are clipped, NaN becomes black."""
        unit = (samples.astype(np.float64) - self.low) / (self.high - self.low)
        full: NDArray[np.uint16] = np.rint(np.nan_to_num(unit).clip(0, 1) * 65535).astype(np.uint16)
        return full


def find_stretch(files: Sequence[Path], channels: Channels, *, stretch: bool) -> Stretch | None:
    """Find out how the images of one source have to be stretched; 8-bit images never are.

    An image of the other depths uses its range if the 0.1th and the 99.9th percentile of all samples lie at least a
    quarter of the 16-bit range apart. Raw sensor counts and temperatures do not, and would come out nearly uniform.

    Args:
        files: The images of the source; those that cannot be read are left out.
        channels: Whether their colour, their alpha channel or their temperatures are the source.
        stretch: Whether to stretch images that do not use their range, by these percentiles; False refuses them, but
            for temperatures.

    Returns:
        The limits for all images of more than 8 bits; None if they are to be read as they are.

    Raises:
        UserError: If the images do not use their range and are not to be stretched, or all have one value.
    """
    with ThreadPoolExecutor() as executor:
        shallow = executor.map(lambda file: has_8_bits(file, channels), files)
        deep = [file for file, bits_8 in zip(files, shallow, strict=True) if not bits_8]
        read = [samples for samples in executor.map(lambda file: _some(file, channels), deep) if samples is not None]
    if not read:
        return None
    values = np.concatenate(read)
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    counts = all(samples.dtype == np.uint16 for samples in read)
    if counts and high - low >= _LEAST:
        return None
    where = f"{deep[0].parent}: images of more than 8 bits hold values from {low:.6g} to {high:.6g}"
    if not (stretch or channels == "thermal"):
        raise UserError(
            f"{where}, {'a small part of their range' if counts else 'which are no 16-bit pixels'}; stretch them to "
            "the full range with --stretch"
        )
    if low == high:
        raise UserError(f"{where}, which cannot be stretched; replace or remove them")
    return Stretch(low, high)


def _some(file: Path, channels: Channels) -> Samples | None:
    """Read samples of an image that are evenly spread over it; None if it cannot be read."""
    try:
        samples = read_samples(file, channels).ravel()
    except UserError:  # which is reported where the image is used
        return None
    samples = samples[:: -(-samples.size // _SAMPLES)]
    return samples[np.isfinite(samples)]
