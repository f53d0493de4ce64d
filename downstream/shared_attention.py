"""Shared attention between the feature pyramids of two detectors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..operators.normalisation import build_norm


class Attended(NamedTuple):
    """One of the two pyramids after the attention.

    Attributes:
        levels: Refined features of each level, (N, C, h, w).
        attention: Map of each level in [0, 1], high where objects are, (N, 1, h, w).
    """

    levels: list[Tensor]
    attention: list[Tensor]


class SharedAttention(nn.Module):
    """Add common features to two pyramids and weight both by maps of object attention.

    At each level, with the features x_1 and x_2: c = ReLU(1x1(cat(x_1, x_2))); then, for each pyramid m, f = x_m + c,
    a = sigmoid(BN(1x1(ReLU(BN(1x1 f))))), a single map, and f (1 + a).

    Source: Sun et al., "DetFusion: A Detection-driven Infrared and Visible Image Fusion Network", ACM MM 2022.

    Args:
        channels: Number C of feature maps of each level.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.common = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.ReLU()) for _ in range(levels)
        )
        self.first_gates = nn.ModuleList(_gate(channels) for _ in range(levels))
        self.second_gates = nn.ModuleList(_gate(channels) for _ in range(levels))

    def forward(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> tuple[Attended, Attended]:
        """Refine two pyramids, with features (N, C, h, w) at each level."""
        attended = Attended([], []), Attended([], [])
        for x_first, x_second, common, *gates in zip(
            first, second, self.common, self.first_gates, self.second_gates, strict=True
        ):
            shared = common(torch.cat((x_first, x_second), 1))
            for x, gate, pyramid in zip((x_first, x_second), gates, attended, strict=True):
                features = x + shared
                attention = gate(features)
                pyramid.levels.append(features * (1 + attention))
                pyramid.attention.append(attention)
        return attended


def _gate(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1, bias=False),
        build_norm("batch", channels),
        nn.ReLU(),
        nn.Conv2d(channels, 1, 1, bias=False),
        build_norm("batch", 1),
        nn.Sigmoid(),
    )
