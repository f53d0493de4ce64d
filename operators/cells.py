"""The kinds of cell, by their name: operators in sequence, at three scales, on two frequency bands, or in a stage.

Each maps (N, C, H, W) to the same shape. Its constructor takes the number of channels C; the ids of the operators in
order; `norm`, "batch", "group" or "none"; and a function that builds an operator. Cells of mixtures are called with the
probabilities (steps, candidates), others without.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from .activation import PReLU
from .guided_filter import channel_range, guided_low_parts
from .normalisation import build_norm
from .primitives import Depthwise, Pointwise, added
from .sampling import ResidualDown, ResidualUp, SelectiveKernelFusion

GUIDED_RADII = (2, 4, 8)
GUIDED_EPSILONS = (1e-3, 1e-4)

OperatorBuilder = Callable[[str, int], nn.Module]  # (operator id, channels) -> operator


def size_multiple(halvings: int, cells: Iterable[tuple[int | None, str]]) -> int:
    """Return the number of pixels to whose multiples a network pads heights and widths.

    Args:
        halvings: How often the network itself halves them.
        cells: Level in a pyramid network, or None, and kind of each cell. A multi-scale cell halves its level twice.
    """
    inside = [2 + (halvings if level is None else level + 1) for level, kind in cells if kind == "multi_scale"]
    return 2 ** int(max([halvings, *inside]))


class Chain(nn.ModuleList):
    """Operators in sequence. Mixtures of candidates also take their probabilities, (steps, candidates)."""

    def forward(self, x: Tensor, probabilities: Tensor | None = None) -> Tensor:
        if probabilities is None:
            for operator in self:
                x = operator(x)
        else:
            for operator, row in zip(self, probabilities, strict=True):
                x = operator(x, row)
        return x


class Blocks(Chain):
    """Operators in sequence, each added to its input, so that `identity` leaves a block out."""

    def forward(self, x: Tensor, probabilities: Tensor | None = None) -> Tensor:
        if probabilities is None:
            for operator in self:
                x = added(operator, x)
        else:
            for mixture, row in zip(self, probabilities, strict=True):
                x = mixture.added(x, row)  # type: ignore[operator]
        return x


def _preprocess(channels: int, norm: str) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), Pointwise(channels, channels), build_norm(norm, channels))


class SuccessiveCell(nn.Module):
    """ReLU, 1x1, norm, then the operators in sequence."""

    def __init__(self, channels: int, operators: Sequence[str], norm: str, build: OperatorBuilder) -> None:
        super().__init__()
        self.preprocess = _preprocess(channels, norm)
        self.operators = Chain(build(name, channels) for name in operators)

    def forward(self, x: Tensor, probabilities: Tensor | None = None) -> Tensor:
        return self.operators(self.preprocess(x), probabilities)


class StageCell(nn.Module):
    """Residual blocks: the operators in sequence, each added to its input; `identity` leaves a block out."""

    def __init__(self, channels: int, operators: Sequence[str], norm: str, build: OperatorBuilder) -> None:
        super().__init__()
        self.operators = Blocks(build(name, channels) for name in operators)

    def forward(self, x: Tensor, probabilities: Tensor | None = None) -> Tensor:
        return self.operators(x, probabilities)


class MultiScaleCell(nn.Module):
    """The same operators at C, 2C and 4C feature maps on 1, 1/2 and 1/4 of the size, merged, + input.

    H and W are multiples of 4.
    """

    def __init__(self, channels: int, operators: Sequence[str], norm: str, build: OperatorBuilder) -> None:
        super().__init__()
        self.preprocess = _preprocess(channels, norm)
        self.down_half = ResidualDown(channels)
        self.down_quarter = nn.Sequential(ResidualDown(channels), ResidualDown(2 * channels))
        self.operators = Chain(build(name, channels) for name in operators)
        self.operators_half = Chain(build(name, 2 * channels) for name in operators)
        self.operators_quarter = Chain(build(name, 4 * channels) for name in operators)
        self.up_half = ResidualUp(2 * channels)
        self.up_quarter = nn.Sequential(ResidualUp(4 * channels), ResidualUp(2 * channels))
        self.merge = SelectiveKernelFusion(channels, 3)

    def forward(self, x: Tensor, probabilities: Tensor | None = None) -> Tensor:
        x = self.preprocess(x)
        full = self.operators(x, probabilities)
        half = self.up_half(self.operators_half(self.down_half(x), probabilities))
        quarter = self.up_quarter(self.operators_quarter(self.down_quarter(x), probabilities))
        return x + self.merge([full, half, quarter])


class DecompositionCell(nn.Module):
    """Operators on the low and on the high frequencies that guided filters separate; a residual module merges both."""

    def __init__(self, channels: int, operators: Sequence[str], norm: str, build: OperatorBuilder) -> None:
        super().__init__()
        bands = len(GUIDED_RADII) * len(GUIDED_EPSILONS)
        self.low_projection = Pointwise(bands * channels, channels)
        self.high_projection = Pointwise(bands * channels, channels)
        self.low_operators = Chain(build(name, channels) for name in operators)
        self.high_operators = Chain(build(name, channels) for name in operators)
        self.merge = Pointwise(2 * channels, channels)
        self.residual = nn.Sequential(
            Depthwise(channels, 5, 2),
            Depthwise(channels, 3, 2),
            Depthwise(channels, 3, 2),
            Pointwise(channels, channels),
            build_norm(norm, channels),
            PReLU(),
        )

    def forward(self, x: Tensor, probabilities: Tensor | None = None) -> Tensor:
        low_parts = guided_low_parts(channel_range(x), x, GUIDED_RADII, GUIDED_EPSILONS)
        low = self.low_projection(torch.cat(low_parts, 1))
        high = self.high_projection(torch.cat([x - part for part in low_parts], 1))
        low = self.low_operators(low, probabilities)
        high = self.high_operators(high, probabilities)
        merged = self.merge(torch.cat((low, high), 1))
        return self.residual(merged) + merged


CELLS = {
    "successive": SuccessiveCell,
    "multi_scale": MultiScaleCell,
    "decomposition": DecompositionCell,
    "stage": StageCell,
}
