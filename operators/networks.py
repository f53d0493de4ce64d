"""The fusion networks of TIM: the first stage fuses two sources, the second refines the fused image with both."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation import PReLU
from .borders import padded, reflected
from .cells import CELLS, OperatorBuilder, size_multiple
from .envelope import enveloped, start_near_maximum
from .normalisation import build_norm
from .sampling import shuffled, unshuffled

CellSpecification = tuple[str, Sequence[str]]  # kind of cell, ids of its operators


def _head(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        reflected(channels, channels), PReLU(), reflected(channels, channels // 2), reflected(channels // 2, outputs, 1)
    )


def _cells(
    specifications: Sequence[CellSpecification], channels: int, norm: str, build: OperatorBuilder
) -> nn.ModuleList:
    return nn.ModuleList(CELLS[kind](channels, operators, norm, build) for kind, operators in specifications)


class FusionNetwork(nn.Module):
    """A stem on both sources, cells and a head, for any H and W.

    Args:
        cells: Kind and operator ids of each cell, in order.
        norm: Normalisation of the cells, "batch", "group" or "none".
        stem: Resolution of the features: "full", or "half" for half the height and width, by unshuffled pixels.
        head: With "direct" it computes the fused image F, as in TIM. With "envelope" it computes three maps u, l and o,
            and F = u max(A, B) + l min(A, B) + o, which keeps the detail of the sources A and B even where features are
            coarse. It starts near the maximum.

    Attributes:
        multiple: Number of pixels to whose multiples heights and widths are padded.

    Example:
        >>> cells = [("successive", ["identity"])]
        >>> network = FusionNetwork(8, cells, "none", "full", "direct", lambda *_: nn.Identity())
        >>> network(*torch.zeros(2, 1, 1, 30, 50)).shape
        torch.Size([1, 1, 30, 50])
    """

    def __init__(
        self, channels: int, cells: Sequence[CellSpecification], norm: str, stem: str, head: str, build: OperatorBuilder
    ) -> None:
        super().__init__()
        self.shrink = 2 if stem == "half" else 1
        self.multiple = size_multiple(self.shrink - 1, [(None, kind) for kind, _ in cells])
        area = self.shrink**2
        self.stem = nn.Sequential(
            reflected(2 * area, 2 * channels), PReLU(), reflected(2 * channels, channels), PReLU()
        )
        self.cells = _cells(cells, channels, norm, build)
        self.head = _head(channels, 3 * area if head == "envelope" else area)
        self.envelope = head == "envelope"
        if self.envelope:
            start_near_maximum(self.head[-1], area)

    def forward(
        self, first: Tensor, second: Tensor, probabilities: Tensor | None = None, *, attention: Tensor | None = None
    ) -> Tensor:
        """Fuse two aligned luma images.

        Args:
            first: First source, (N, 1, H, W), in [0, 1].
            second: Second source, (N, 1, H, W), in [0, 1].
            probabilities: Those of the candidates of a supernet, (cells, steps, candidates).
            attention: Where objects are, (N, 1, H, W), in [0, 1]. It multiplies the features before the head by
                1 + attention.

        Returns:
            The fused image (N, 1, H, W), not clipped.
        """
        height, width = first.shape[-2:]
        least = 2 * self.shrink  # two pixels can be reflected
        sources = padded(torch.cat((first, second), 1), self.multiple, least)
        x = unshuffled(sources, self.shrink) if self.shrink > 1 else sources
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for index, cell in enumerate(self.cells):
            x = cell(x, None if probabilities is None else probabilities[index])
        if attention is not None:
            x = x * (1 + F.avg_pool2d(padded(attention, self.multiple, least), self.shrink))
        x = self.head(x)
        if self.shrink > 1:
            x = shuffled(x, self.shrink)
        if self.envelope:
            x = enveloped(x, *sources.split(1, 1))
        return x[..., :height, :width]


class RefineNetwork(nn.Module):
    """A branch of stem and cells on each source beside the fused image, and a merge of both branches, for any H and W.

    Args:
        norm: Normalisation of stems and cells, "batch", "group" or "none".
        merge: Merge of the branches: "gated" blends them by a mask that the first one computes, "concat" stacks them
            and ends in tanh.

    Attributes:
        multiple: Number of pixels to whose multiples heights and widths are padded.

    Example:
        >>> cells = [("successive", ["identity"])]
        >>> network = RefineNetwork(8, cells, cells, "none", "gated", lambda *_: nn.Identity())
        >>> [tuple(image.shape) for image in network(*torch.zeros(3, 1, 1, 30, 50))]
        [(1, 1, 30, 50), (1, 1, 30, 50), (1, 1, 30, 50)]
    """

    def __init__(
        self,
        channels: int,
        first_cells: Sequence[CellSpecification],
        second_cells: Sequence[CellSpecification],
        norm: str,
        merge: str,
        build: OperatorBuilder,
    ) -> None:
        super().__init__()
        self.multiple = size_multiple(0, [(None, kind) for kind, _ in (*first_cells, *second_cells)])
        self.first_stem = self._stem(channels, norm)
        self.second_stem = self._stem(channels, norm)
        self.first_cells = _cells(first_cells, channels, norm, build)
        self.second_cells = _cells(second_cells, channels, norm, build)
        self.first_head = _head(channels, 1)
        self.second_head = _head(channels, 1)
        # The published gate has three inputs: the maximum over the channels twice, and their mean.
        self.gate = nn.Conv2d(3, 1, 1, bias=False) if merge == "gated" else None
        merged = channels if merge == "gated" else 2 * channels
        self.head = nn.Sequential(
            reflected(merged, channels), reflected(channels, channels // 2), reflected(channels // 2, 1, 1)
        )

    @staticmethod
    def _stem(channels: int, norm: str) -> nn.Sequential:
        return nn.Sequential(
            reflected(2, 2 * channels), PReLU(), reflected(2 * channels, channels), build_norm(norm, channels), PReLU()
        )

    def forward(
        self, first: Tensor, second: Tensor, fused: Tensor, probabilities: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine a fused image beside its sources.

        Args:
            first: First source, (N, 1, H, W), in [0, 1].
            second: Second source, (N, 1, H, W), in [0, 1].
            fused: The output of the first stage, (N, 1, H, W).
            probabilities: Those of the candidates of a supernet, (cells, steps, candidates), the cells of the first
                branch first.

        Returns:
            The image of the first branch, the image of the second branch and the refined image, each (N, 1, H, W).
        """
        height, width = first.shape[-2:]
        images = padded(torch.cat((first, second, fused), 1), self.multiple, least=2)
        x_first = self.first_stem(images[:, [0, 2]])
        x_second = self.second_stem(images[:, [1, 2]])
        for index, cell in enumerate(self.first_cells):
            x_first = cell(x_first, None if probabilities is None else probabilities[index])
        for index, cell in enumerate(self.second_cells, start=len(self.first_cells)):
            x_second = cell(x_second, None if probabilities is None else probabilities[index])
        if self.gate is None:
            refined = self.head(torch.cat((x_first, x_second), 1)).tanh()
        else:
            maximum = x_first.amax(1, keepdim=True)
            mask = self.gate(torch.cat((maximum, maximum, x_first.mean(1, keepdim=True)), 1)).sigmoid()
            refined = self.head(mask * x_first + (1 - mask) * x_second)
        outputs = self.first_head(x_first).tanh(), self.second_head(x_second).tanh(), refined
        first_image, second_image, refined = (image[..., :height, :width] for image in outputs)
        return first_image, second_image, refined
