"""Images made of both sources without a network, to which the fused image of some tasks is drawn."""

import torch
from torch import Tensor

from .gradients import sobel
from .window import gaussian_filter

_EXPOSEDNESS = 0.2  # how far from 1/2 grey levels are well exposed, a standard deviation
_ACTIVITY = 0.1  # grey level of a functional image from which on its activity shows
_FLOOR = 1e-6


def exposed_target(first: Tensor, second: Tensor) -> Tensor:
    """Two exposures blended by how well each is exposed: exp(-(I - 1/2)² / 0.08), at each pixel by itself.

    A blend of neighbourhoods would have halos around what only one exposure shows. This one has less contrast, for a
    term of gradients to bring back, and where exposures lie far apart it can turn the order of two tones round. (The
    exposedness of Mertens et al., "Exposure Fusion", 2007.)

    Args:
        first: (N, 1, H, W) in [0, 1].
        second: (N, 1, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) in [0, 1].
    """
    sources = torch.stack([first, second])
    exposedness = torch.exp(-((sources - 0.5) / _EXPOSEDNESS).square() / 2)
    return (sources * exposedness).sum(0) / exposedness.sum(0)


def sharper_target(first: Tensor, second: Tensor) -> Tensor:
    """Of two focal planes, at each place the sharper one.

    The weights are the fourth powers of the local gradient strengths, so that between equal ones lies a narrow blend.

    Args:
        first: (N, 1, H, W) in [0, 1], H and W at least 17.
        second: (N, 1, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) in [0, 1].
    """
    sources = torch.stack([first, second])
    across, down = sobel(sources.flatten(0, 1))
    strength = gaussian_filter((across.square() + down.square()).view_as(sources), 33, 5.0, "reflect") + _FLOOR
    weights = (strength / strength.amax(0)).square()
    return (sources * weights / weights.sum(0)).sum(0)


def functional_target(first: Tensor, second: Tensor) -> Tensor:
    """The activity B of a functional image where it has any, the anatomy A elsewhere: A + (B - A) B² / (B² + 0.01).

    Args:
        first: A, the anatomy (MRI), (N, 1, H, W) in [0, 1].
        second: B, the activity (luma of PET or SPECT), (N, 1, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) in [0, 1].
    """
    activity = second.square()
    return first + activity / (activity + _ACTIVITY**2) * (second - first)
