"""What a task network sees of a pair: the fused image, or images that need no fusion network, in luma or in colour."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..data import PairBatch
from ..objectives.trivial_fusion import TRIVIAL, average
from ..runtime.distribution import ALONE, Ranks

SOURCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "first": lambda first, second: first,
    "second": lambda first, second: second,
    **TRIVIAL,
    "blend": average,  # in training a random mixture in each crop, see `blend`
    "both": average,  # the image for the fusion loss; the task network sees both sources, see `shown`
}
"""Images that need no network."""


def channels_of(images: str, *, colour: bool) -> int:
    """Return how many planes a task network sees.

    Example:
        >>> channels_of("fused", colour=True), channels_of("both", colour=True), channels_of("both", colour=False)
        (3, 4, 2)
    """
    return (3 if colour else 1) + (images == "both")


def shown(luma: Tensor, batch: PairBatch, channels: int, *, images: str = "fused", coloured: str = "second") -> Tensor:
    """Return the planes of images that a task network sees.

    Args:
        luma: The images, (N, 1, H, W), which are clipped to [0, 1].
        batch: The sources, with their colours where there are three or four planes.
        channels: Number of planes: 1 for luma, 3 for red, green and blue, 2 for the luma of both sources, 4 for the
            luma of one source and the red, green and blue of the other; see `channels_of`.
        images: What the images are, a key of `SOURCES`; anything else is a fused image. A source alone is grey, unless
            the colours are its own; those of "both" belong to none.
        coloured: The source that has the colours, "first", "second" or "both"; see `Genotype.colour_source`.

    Returns:
        (N, channels, H, W) in [0, 1], differentiable by `luma`.

    Example:
        >>> batch = PairBatch(*torch.rand(2, 1, 1, 8, 8), colour=torch.zeros(1, 3, 8, 8))
        >>> shown(batch.first, batch, 3).shape, shown(batch.first, batch, 2, images="both").shape
        (torch.Size([1, 3, 8, 8]), torch.Size([1, 2, 8, 8]))
    """
    if images == "both":
        grey, other = (batch.second, batch.first) if coloured == "first" else (batch.first, batch.second)
        return torch.cat((grey, _coloured(other, batch, channels - 1)), 1)
    if images in ("first", "second") and coloured != images:
        return luma.clamp(0, 1).expand(-1, channels, -1, -1)
    return _coloured(luma.clamp(0, 1), batch, channels)


def _coloured(luma: Tensor, batch: PairBatch, channels: int) -> Tensor:
    if channels == 1:
        return luma
    assert batch.colour is not None
    return (luma + batch.colour).clamp(0, 1)


def blend(first: Tensor, second: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Mix the sources of each pair at random: one source, the other, their average, or anything between."""
    count = ranks.count * len(first), 1, 1, 1  # each process draws for all
    fixed = torch.randint(3, count, device=first.device) / 2
    share = torch.where(torch.rand(count, device=first.device) < 0.75, fixed, torch.rand(count, device=first.device))
    own = share[ranks.rank :: ranks.count]
    return own * first + (1 - own) * second
