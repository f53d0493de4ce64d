"""The supernet of pyramid networks in which the width of each level is a choice, too."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .borders import repeated
from .cells import OperatorBuilder
from .mixture import SMALLEST_PROBABILITY
from .pyramid import LevelCell, PyramidNetwork
from .sampling import unshuffled

WIDENED = frozenset(("plain", "inverted", "residual", "dilated", "separable", "channel_attention", "identity"))
"""The kinds of operator whose first feature maps do not depend on the last ones where those are 0."""

COARSE_STEM = "coarse_stem"
"""The stem of networks without the finest level, in the largest network."""


class WidthSupernet(nn.Module):
    """A pyramid network of the largest widths, whose feature maps are masked by the probabilities of smaller ones.

    The mask of a level is m_c = Σ_w p_w [c < w] for its feature map c (FBNetV2, Wan et al., CVPR 2020, eq. 3). It
    multiplies the rows of the weights of every convolution that computes feature maps of the level: as activations are
    positively homogeneous, the features are multiplied by it. With one width of probability 1 the other features are 0,
    and the network is that of the width. The finest level may have the width 0; then the coarser one starts with a stem
    of its own.

    Args:
        options: For each level, equally many numbers of feature maps in rising order, even. The first of the finest
            level may be 0.
        cells: Level, kind and operator ids of each cell, whose operators are of the kinds `WIDENED`.

    Example:
        >>> from timfuse.operators.mixture import MixedOperator
        >>> cells = [(0, "stage", ["mixture"]), (1, "stage", ["mixture"])]
        >>> supernet = WidthSupernet([(0, 8), (8, 12)], cells, "bands", lambda *_: MixedOperator([nn.Identity()]))
        >>> probabilities, widths = torch.ones(2, 1, 1), torch.full((2, 2), 0.5)
        >>> supernet(*torch.zeros(2, 1, 1, 30, 50), probabilities, widths).shape
        torch.Size([1, 1, 30, 50])
    """

    def __init__(
        self, options: Sequence[Sequence[int]], cells: Sequence[LevelCell], head: str, build: OperatorBuilder
    ) -> None:
        super().__init__()
        largest = [max(widths) for widths in options]
        self.optional = options[0][0] == 0  # whether the finest level may be absent
        self.network = (
            _LargestNetwork(largest, cells, head, build)
            if self.optional
            else PyramidNetwork(largest, cells, "none", head, build)
        )
        self.options = [tuple(widths) for widths in options]
        self.masked: list[tuple[str, int]] = []  # name of a convolution, and the level of its feature maps
        for name, module in self.network.named_modules():
            if isinstance(module, nn.Conv2d) and module.groups == 1 and (level := self._level_of(name)) is not None:
                self.masked.append((name, level))

    def forward(self, first: Tensor, second: Tensor, probabilities: Tensor, widths: Tensor) -> Tensor:
        """Fuse two aligned luma images.

        Args:
            first: First source, (N, 1, H, W), in [0, 1].
            second: Second source, (N, 1, H, W), in [0, 1].
            probabilities: Those of the operators, (cells, steps, candidates).
            widths: Those of the widths, (levels, options).

        Returns:
            The fused image (N, 1, H, W), not clipped.
        """
        masks = [self._mask(level, row) for level, row in enumerate(widths)]
        absent = widths[0, 0] if self.optional else None
        weights = {}
        for name, level in self.masked:
            convolution = self.network.get_submodule(name)
            assert isinstance(convolution, nn.Conv2d)
            # Inside an operator a layer may have a multiple of the feature maps of its level.
            mask = masks[level].repeat_interleave(convolution.out_channels // len(masks[level]))
            if absent is not None and name == COARSE_STEM:
                mask = absent * mask
            elif absent is not None and name.startswith("downs.0."):
                mask = (1 - absent) * mask
            weights[f"{name}.weight"] = convolution.weight * mask.view(-1, 1, 1, 1)
            if convolution.bias is not None:
                weights[f"{name}.bias"] = convolution.bias * mask
        if absent is not None:
            bias = self.network.get_parameter("heads.0.bias")
            weights["heads.0.bias"] = bias * (1 - absent)
        fused: Tensor = functional_call(self.network, weights, (first, second, probabilities))
        return fused

    def _mask(self, level: int, probabilities: Tensor) -> Tensor:
        """Return the sum of the probabilities of the widths that have a feature map, for each of the largest width."""
        options = torch.tensor(self.options[level], device=probabilities.device)
        channels = torch.arange(max(self.options[level]), device=probabilities.device)
        # A zero would hide the sign of the features from the activation, and with it the derivative.
        return (channels[:, None] < options).to(probabilities) @ probabilities + SMALLEST_PROBABILITY

    def _level_of(self, name: str) -> int | None:
        """Return the level of the feature maps that a convolution computes; None for the last ones."""
        part, *rest = name.split(".")
        if part in ("stem", COARSE_STEM):
            return 0 if part == "stem" else 1
        if part in ("downs", "ups"):
            return int(rest[0]) + (part == "downs")
        return self.network.levels[int(rest[0])] if part == "cells" else None


class _LargestNetwork(PyramidNetwork):
    """A pyramid network whose second level also has a stem, for networks without the finest level."""

    def __init__(self, channels: Sequence[int], cells: Sequence[LevelCell], head: str, build: OperatorBuilder) -> None:
        super().__init__(channels, cells, "none", head, build)
        self.coarse_stem = repeated(8, channels[1])

    def _encoded(self, means: Sequence[Tensor]) -> list[Tensor]:
        x = self.stem(unshuffled(means[0], 2).contiguous(memory_format=torch.channels_last))
        stem: Tensor | None = self.coarse_stem(unshuffled(means[1], 2).contiguous(memory_format=torch.channels_last))
        features = [x]
        for down, sources in zip(self.downs, means[2:], strict=True):
            x = down(x, sources.contiguous(memory_format=torch.channels_last), stem)
            features.append(x)
            stem = None
        return features
