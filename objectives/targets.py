"""Simple fusions of two sources that serve as targets of the fusion loss."""

import torch
from torch import Tensor

from .sobel import sobel
from .window import gaussian_filter

_EXPOSEDNESS = 0.2  # standard deviation of well exposed grey levels from 1/2
_ACTIVITY = 0.1  # grey level of a functional image above which activity is visible
_FLOOR = 1e-6


def exposed_target(first: Tensor, second: Tensor) -> Tensor:
    """Blend two exposures, (N, 1, H, W) in [0, 1], by how well each is exposed, at each pixel independently.

        T = Σ_k e_k I_k / Σ_k e_k,  e_k = exp(-(I_k - 1/2)² / 0.08)

    A blend of neighbourhoods would show halos. This one has less contrast, which a gradient term can restore, and where
    the exposures lie far apart it can invert the order of two tones.

    References:
        Mertens, Kautz and Van Reeth, "Exposure Fusion" (Pacific Graphics 2007), for the exposedness e.

    Example:
        >>> print(f"{exposed_target(torch.full((1, 1, 1, 1), 0.5), torch.ones(1, 1, 1, 1)).item():.2f}")
        0.52
    """
    sources = torch.stack([first, second])
    exposedness = torch.exp(-((sources - 0.5) / _EXPOSEDNESS).square() / 2)
    return (sources * exposedness).sum(0) / exposedness.sum(0)


def sharper_target(first: Tensor, second: Tensor) -> Tensor:
    """Take the sharper of two focal planes at each place.

        T = Σ_k s_k⁴ I_k / Σ_k s_k⁴,  s_k = local root mean square of |∇I_k|

    The fourth power keeps the blend between equally sharp regions narrow.

    Args:
        first: First focal plane, (N, 1, H, W), in [0, 1], like the second one; H and W are at least 17.

    Example:
        >>> sharp, blurred = torch.eye(20)[None, None], torch.full((1, 1, 20, 20), 0.05)
        >>> torch.allclose(sharper_target(sharp, blurred), sharp, atol=0.01)
        True
    """
    sources = torch.stack([first, second])
    across, down = sobel(sources.flatten(0, 1))
    strength = gaussian_filter((across.square() + down.square()).view_as(sources), 33, 5.0, "reflect") + _FLOOR
    weights = (strength / strength.amax(0)).square()
    return (sources * weights / weights.sum(0)).sum(0)


def functional_target(first: Tensor, second: Tensor) -> Tensor:
    """Show the activity B of a functional image where there is some, and the anatomy A elsewhere.

        T = A + (B - A) B² / (B² + 0.01)

    Args:
        first: Anatomy A, such as MRI, (N, 1, H, W), in [0, 1].
        second: Activity B, the luma of PET or SPECT, (N, 1, H, W), in [0, 1].

    Example:
        >>> functional_target(torch.tensor([0.6, 0.6]), torch.tensor([0.0, 0.3]))
        tensor([0.6000, 0.3300])
    """
    activity = second.square()
    return first + activity / (activity + _ACTIVITY**2) * (second - first)
