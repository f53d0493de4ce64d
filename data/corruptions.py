"""Corruptions of a source: noise, blur, fog, misplacement and missing rows, each in three severities."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from ..genotypes.choices import check_choice
from ..runtime.errors import UserError
from .colour import LUMA
from .pair_batch import PairBatch
from .synthetic.fields import spread

Corruption = Literal["noise", "blur", "fog", "shift", "missing"]
SEVERITIES = 1, 2, 3
_VEIL = 0.6, 0.95  # the darkest and the brightest fog
_CELLS = 2  # of the grid on which fog varies, along each axis
_REACH = 4  # standard deviations, where the Gaussian of a blur is cut


def corrupt(image: Tensor, name: str, severity: int, generator: Generator) -> Tensor:
    """Corrupt images, each with random numbers of its own.

    The result is differentiable by the images. How much a downstream task suffers from corrupted sources of a fusion
    is the question of Liu et al., "PAIF: Perception-Aware Infrared-Visible Image Fusion for Attack-Tolerant Semantic
    Segmentation", ACM MM 2023, arXiv 2308.03979, who attack them. Corruptions with severities are from Hendrycks and
    Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019, arXiv
    1903.12261.

    Args:
        image: Images of one source, (N, C, H, W) in [0, 1].
        name: Kind of the corruption. "noise" adds Gaussian noise with a standard deviation of 0.04, 0.08 or 0.16;
            "blur" is Gaussian with 1, 2 or 4 pixels and replicated borders; "fog" keeps 0.7, 0.5 or 0.3 of the image
            and fills up with a smooth veil in [0.6, 0.95]; "shift" moves by 1, 2 or 4 pixels to one of the eight
            neighbours, with replicated borders; "missing" gives a stripe of a quarter, a half or all of the rows the
            mean of the image.
        severity: Strength of the corruption, 1, 2 or 3, from weak to strong.
        generator: Source of all random numbers, on any device.

    Returns:
        Images in [0, 1] of the same shape.

    Raises:
        UserError: If there is no such corruption or severity.

    Example:
        >>> ramp = torch.linspace(0, 1, 5).expand(1, 1, 4, 5)
        >>> corrupt(ramp, "missing", 1, torch.Generator().manual_seed(0)).sum(dim=(2, 3)).item()
        10.0
    """
    check_choice("the corruption", name, CORRUPTIONS)
    change, strengths = CORRUPTIONS[name]
    if severity not in SEVERITIES:
        raise UserError(f"the severity must be one of 1, 2, 3, not {severity!r}")
    return change(image, strengths[severity - 1], generator).clamp(0, 1)


def corrupt_source(
    batch: PairBatch, side: str, name: str, severity: int, generator: Generator, *, coloured: bool = False
) -> PairBatch:
    """Corrupt one source of a batch of pairs, with its colours; arguments as for `corrupt`.

    Args:
        side: The source, "first" or "second".
        coloured: Whether the colours of the batch, if it has some, are those of this source.

    Example:
        >>> batch = PairBatch(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
        >>> blurred = corrupt_source(batch, "second", "blur", 3, torch.Generator())
        >>> torch.equal(blurred.first, batch.first), bool(blurred.second.std() < batch.second.std())
        (True, True)
    """
    luma: Tensor = getattr(batch, side)
    if batch.colour is None or not coloured:
        return _with(batch, side, corrupt(luma, name, severity, generator))
    image = corrupt((luma + batch.colour).clamp(0, 1), name, severity, generator)  # (N, 3, H, W)
    luma = (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return _with(batch, side, luma)._replace(colour=image - luma)


def corrupt_some(batch: PairBatch, names: Sequence[str], seeds: Sequence[int], *, coloured: str) -> PairBatch:
    """Corrupt one source of about every second pair of a batch, by one of some corruptions at a random severity.

    Args:
        names: The corruptions to draw from, at least one.
        seeds: A seed for each of the N pairs, on which all that happens to it depends.
        coloured: The source that has the colours, "first", "second" or "both".

    Example:
        >>> batch = PairBatch(torch.rand(20, 1, 8, 8), torch.rand(20, 1, 8, 8))
        >>> seen = corrupt_some(batch, ["noise", "fog"], range(20), coloured="second")
        >>> changed = ((seen.first != batch.first) | (seen.second != batch.second)).flatten(1).any(1)
        >>> 4 < int(changed.sum()) < 16
        True
    """
    parts = []
    for place, seed in enumerate(seeds):
        own = [None if each is None else each[place : place + 1] for each in (batch.first, batch.second, batch.colour)]
        part = PairBatch(own[0], own[1], colour=own[2])  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(seed)
        if _draw(2, 1, generator) == [1]:
            side = ("first", "second")[_draw(2, 1, generator)[0]]
            name, severity = names[_draw(len(names), 1, generator)[0]], SEVERITIES[_draw(3, 1, generator)[0]]
            part = corrupt_source(part, side, name, severity, generator, coloured=coloured in (side, "both"))
        parts.append(part)
    first, second = (torch.cat([getattr(part, side) for part in parts]) for side in ("first", "second"))
    colours = [part.colour for part in parts if part.colour is not None]
    return batch._replace(first=first, second=second, colour=torch.cat(colours) if colours else None)


def _with(batch: PairBatch, side: str, luma: Tensor) -> PairBatch:
    return batch._replace(first=luma) if side == "first" else batch._replace(second=luma)


def _noise(image: Tensor, sigma: float, generator: Generator) -> Tensor:
    noise = torch.randn(image.shape, generator=generator, device=generator.device)
    return image + sigma * noise.to(image)


def _blur(image: Tensor, sigma: float, _: Generator) -> Tensor:
    down, across = (_blurring(size, sigma).to(image) for size in image.shape[-2:])
    return down @ image @ across.T


def _blurring(size: int, sigma: float) -> Tensor:
    """Make the matrix (size, size) that blurs a line of pixels with replicated ends."""
    offsets = torch.arange(-int(_REACH * sigma), int(_REACH * sigma) + 1)
    weights = torch.exp(-offsets.double().square() / (2 * sigma**2))
    places = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    rows = (weights / weights.sum()).expand(size, -1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, places, rows)


def _fog(image: Tensor, kept: float, generator: Generator) -> Tensor:
    nodes = torch.rand(len(image), 1, _CELLS + 3, _CELLS + 3, generator=generator, device=generator.device)
    low, high = _VEIL
    height, width = image.shape[-2:]
    veil = torch.from_numpy(spread((low + (high - low) * nodes).cpu().numpy(), height, width))
    return kept * image + (1 - kept) * veil.to(image)


def _shift(image: Tensor, pixels: float, generator: Generator) -> Tensor:
    height, width = image.shape[-2:]
    moved = []
    for each, direction in zip(image, _draw(8, len(image), generator), strict=True):
        # The eight neighbours in reading order, without the middle one of nine.
        down, right = divmod(direction + (direction > 3), 3)
        rows, columns = (
            (torch.arange(size) - int(pixels) * (step - 1)).clamp(0, size - 1).to(image.device)
            for size, step in ((height, down), (width, right))
        )
        moved.append(each.index_select(1, rows).index_select(2, columns))
    return torch.stack(moved)


def _miss(image: Tensor, part: float, generator: Generator) -> Tensor:
    height = image.shape[-2]
    rows = round(part * height)
    tops = torch.tensor(_draw(height - rows + 1, len(image), generator)).view(-1, 1, 1, 1)
    places = torch.arange(height).view(1, 1, -1, 1)
    missing = (places >= tops) & (places < tops + rows)
    return torch.where(missing.to(image.device), image.mean(dim=(-2, -1), keepdim=True), image)


def _draw(choices: int, count: int, generator: Generator) -> list[int]:
    numbers: list[int] = torch.randint(choices, (count,), generator=generator, device=generator.device).tolist()
    return numbers


CORRUPTIONS: dict[str, tuple[Callable[[Tensor, float, Generator], Tensor], tuple[float, ...]]] = {
    "noise": (_noise, (0.04, 0.08, 0.16)),
    "blur": (_blur, (1, 2, 4)),
    "fog": (_fog, (0.7, 0.5, 0.3)),
    "shift": (_shift, (1, 2, 4)),
    "missing": (_miss, (0.25, 0.5, 1)),
}
"""What changes an image, and by how much in the severities 1, 2 and 3, by the name of the corruption."""
