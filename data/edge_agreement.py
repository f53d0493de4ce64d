"""How well the edges of two images of different kinds agree, at one position or at every shift."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_DENOISED = 1.5  # standard deviations of Gaussians, in pixels
_NEIGHBOURHOOD = 8.0
_REACH = 5  # pixels from which a gradient is computed, to each side
_FLOOR = 0.5  # of the mean gradient: edges that are much weaker count less
_NOISE = 4e-4  # of the whole range for each pixel; weaker gradients are no edges
_TINY = 1e-6
_STEP, _HULL = 4, 1.03  # pixels between those that are looked at for a convex region, and the area that it may lack


def edge_maps(images: Tensor) -> Tensor:
    """Compute strength and direction of the edges of images, independent of contrast and of its sign.

    The strength m is the norm of the gradient over its mean in the neighbourhood, the maps are m, m cos(2a) and
    m sin(2a) for the direction a of the gradient. The product of the maps of two images is 2 m1 m2 cos(a1 - a2)^2, the
    measure of normalised gradient fields (Haber and Modersitzki, "Intensity Gradient Based Registration and Fusion of
    Multi-modal Images", MICCAI 2006). Black from the border on, as an earlier warp leaves it, has no edges, and gets no
    weight.

    Args:
        images: Luma of shape (N, 1, H, W) in [0, 1].

    Returns:
        The three maps times the weight, and the weight of each pixel in [0, 1], shape (N, 4, H, W).

    Example:
        >>> ramp = torch.linspace(0.1, 1, 64).expand(1, 1, 64, 64)
        >>> torch.allclose(edge_maps(ramp), edge_maps(1.1 - ramp), atol=1e-5)
        True
    """
    empty = torch.stack([_left_empty(image[0]) for image in images])[:, None].to(images.dtype)
    weight = 1 - F.max_pool2d(empty, 2 * _REACH + 1, 1, _REACH)
    padded = F.pad(blurred(images, _DENOISED), (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2 * weight
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2 * weight
    size = (across**2 + down**2).sqrt()
    usual = blurred(size, _NEIGHBOURHOOD) / blurred(weight, _NEIGHBOURHOOD).clamp_min(_TINY)
    mean = size.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1)
    strength = size / (usual + _FLOOR * mean + _NOISE)
    unit = strength / (size**2 + _TINY**2)
    return torch.cat([strength, (across**2 - down**2) * unit, 2 * across * down * unit, weight], dim=1)


def _left_empty(image: Tensor) -> Tensor:
    """Find the pixels (H, W) that a warp has left black: all outside of a convex region, which a black sky is not."""
    zero = (image == 0).to(torch.uint8)
    empty = torch.zeros_like(image, dtype=torch.bool)
    for axis in (0, 1):
        empty |= (zero.cumprod(axis) > 0) | (zero.flip(axis).cumprod(axis).flip(axis) > 0)
    seen = ~empty[::_STEP, ::_STEP]
    if seen.all() or not seen.any():
        return torch.zeros_like(empty)
    places = torch.stack(torch.meshgrid(*map(torch.arange, seen.shape), indexing="ij"), -1).float()
    angles = torch.arange(0, 2 * math.pi, math.pi / 180)
    along = places @ torch.stack([angles.sin(), angles.cos()])  # (rows, columns, angles)
    hull = (along <= along[seen].amax(0) + _TINY).all(-1)
    return empty if hull.sum() <= _HULL * seen.sum() else torch.zeros_like(empty)


def blurred(maps: Tensor, sigma: float) -> Tensor:
    """Convolve maps (N, C, H, W) with a Gaussian; their border pixels go on beyond the border."""
    radius = max(1, round(3 * sigma))
    taps = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).expand(maps.shape[1], 1, 1, -1)
    padded = F.pad(maps, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, taps, groups=maps.shape[1])
    return F.conv2d(rows, taps.transpose(2, 3), groups=maps.shape[1])


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Compute the correlation of weighted maps over their common part.

    Args:
        first: Maps times their weight, and the weight, shape (N, C + 1, H, W); see `edge_maps`.
        second: Maps in the same form and of the same shape.

    Returns:
        The correlation of each pair, shape (N,), in [-1, 1].

    Example:
        >>> maps = edge_maps(torch.rand(2, 1, 32, 32))
        >>> torch.allclose(agreement(maps, maps), torch.ones(2))
        True
    """
    weights = first[:, -1:], second[:, -1:]
    weight = weights[0] * weights[1]
    area = weight.sum((2, 3), keepdim=True) + _TINY
    a, b = (maps[:, :-1] * other for maps, other in ((first, weights[1]), (second, weights[0])))
    a, b = (maps - maps.sum((2, 3), keepdim=True) / area * weight for maps in (a, b))
    product, energies = (a * b).sum((1, 2, 3)), (a * a).sum((1, 2, 3)) * (b * b).sum((1, 2, 3))
    return product / (energies + _TINY**2).sqrt()


def agreement_by_shift(first: Tensor, second: Tensor, least: float) -> Tensor:
    """Compute the mean agreement of pairs of weighted maps at every shift of the second maps, by Fourier transforms.

    The agreement is the correlation times the root of the common part's share of the smaller map, because correlations
    of small parts are often large by chance.

    Args:
        first: Maps times their weight, and the weight, shape (N, C + 1, H, W); see `edge_maps`.
        second: Maps in the same form, of shape (N, C + 1, H', W').
        least: The smallest common part, as a share of the smaller map; shifts that leave less have -1.

    Returns:
        The mean over pairs, (rows, columns): the entry [y, x] is for second maps moved down by y and to the right by x
        pixels. Entries at least as far down or right as H or W are for moves up and to the left, counted from the end.

    Example:
        >>> maps = edge_maps(torch.rand(1, 1, 40, 40))
        >>> found = agreement_by_shift(maps[..., 2:], maps[..., 5:, :], 0.5)
        >>> divmod(int(found.argmax()), found.shape[1]) == (5, found.shape[1] - 2)
        True
    """
    weights = first[:, -1:], second[:, -1:]
    a, b = (
        maps[:, :-1] - maps[:, :-1].sum((2, 3), keepdim=True) / (weight.sum((2, 3), keepdim=True) + _TINY) * weight
        for maps, weight in zip((first, second), weights, strict=True)
    )
    # Multiples of 32 have fast transforms.
    size = [-(-(a.shape[axis] + b.shape[axis] - 1) // 32) * 32 for axis in (2, 3)]

    def correlate(left: Tensor, right: Tensor) -> Tensor:
        product = (torch.fft.rfft2(left, s=size) * torch.fft.rfft2(right, s=size).conj()).sum(1)
        return torch.fft.irfft2(product, s=size)

    energies = [
        correlate(a.square().sum(1, keepdim=True), weights[1]).clamp_min(_TINY),
        correlate(weights[0], b.square().sum(1, keepdim=True)).clamp_min(_TINY),
    ]
    correlation = (correlate(a, b) / (energies[0] * energies[1]).sqrt().clamp_min(_TINY)).mean(0)
    smaller = min(float(weight.sum((2, 3)).mean()) for weight in weights)
    share = (correlate(*weights).mean(0) / smaller).clamp(0, 1)
    return (correlation * share.sqrt()).where(share >= least, -1)


class Peak(NamedTuple):
    """The shift with the best agreement.

    Attributes:
        right: How far the second maps are moved to the right, in pixels.
        down: How far they are moved down, in pixels.
        lead: The value 1 - b / a, where a is the agreement there, and b the best one that is not near; 0 where a is
            not above 0.
    """

    right: int
    down: int
    agreement: float
    lead: float


def take_peak(shifts: Tensor, size: tuple[int, int], near: int) -> Peak:
    """Find the best shift, and take it and those near it out of the agreements.

    Args:
        shifts: The result of `agreement_by_shift`, (rows, columns); entries that are taken out become -1.
        size: Height and width of the first maps.
        near: Shifts that differ by up to so many pixels in both directions are near.

    Example:
        >>> shifts = torch.zeros(8, 8)
        >>> shifts[1, 7], shifts[5, 5] = 0.5, 0.25
        >>> take_peak(shifts, (6, 6), 1)
        Peak(right=-1, down=1, agreement=0.5, lead=0.5)
    """
    place = divmod(int(shifts.argmax()), shifts.shape[1])
    best = float(shifts[place])
    down, right = (
        shift - (total if shift >= own else 0) for shift, total, own in zip(place, shifts.shape, size, strict=True)
    )
    rows, columns = (
        torch.arange(middle - near, middle + near + 1) % total
        for middle, total in zip(place, shifts.shape, strict=True)
    )
    shifts[rows[:, None], columns] = -1
    lead = 1 - float(shifts.max()) / best if best > 0 else 0.0
    return Peak(right, down, best, lead)
