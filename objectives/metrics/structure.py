"""MEF-SSIM's structure term and the share of smears, which the objectives of these names compute exactly."""

from collections.abc import Callable

from torch import Tensor

from ..mef_structure import mef_structure
from ..smear import smear_share
from .pictures import LEVELS, Pictures


def multi_exposure_structure(pictures: Pictures) -> Tensor:
    """Compute the structure term of MEF-SSIM; see `objectives.mef_structure`.

    Args:
        pictures: Fused pictures and their sources, at least 44 pixels high and wide.

    Returns:
        (N,), -1 to 1.

    References:
        Ma, Zeng and Wang, "Perceptual quality assessment for multi-exposure image fusion" (IEEE TIP 2015).
    """
    return _of_unit_range(mef_structure, pictures)


def smears(pictures: Pictures) -> Tensor:
    """Compute the percentage of pixels with slow structure that no source has; see `objectives.smear`.

    Args:
        pictures: Fused pictures and their sources, at least 17 pixels high and wide.

    Returns:
        (N,), 0 to 100.
    """
    return 100 * _of_unit_range(smear_share, pictures)


def _of_unit_range(function: Callable[..., Tensor], pictures: Pictures) -> Tensor:
    return function(*(images.unsqueeze(1).double() / (LEVELS - 1) for images in (pictures.fused[0], *pictures.sources)))
