"""Learned weights of the two sources in the fusion loss, for the strategy `learned_loss`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .saliency import histogram_saliency

_CHANNELS = 8


class SourceWeights(nn.Module):
    """A small network that weighs the two sources at each pixel.

        w = softmax over the sources of (saliency + correction),  correction = conv(ReLU(conv(sources)))

    The correction starts at 0, so the initial weights are those of `saliency_weights`, to the bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(2, _CHANNELS, 5, padding=2, padding_mode="reflect")
        self.outer = nn.Conv2d(_CHANNELS, 2, 3, padding=1, padding_mode="reflect")
        nn.init.zeros_(self.outer.weight)
        assert self.outer.bias is not None
        nn.init.zeros_(self.outer.bias)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Weigh two sources, (N, 1, H, W) in [0, 1], at each pixel.

        Returns:
            (2, N, 1, H, W) for the first and the second source, with sum 1 over the first dimension.
        """
        correction = self.outer(F.relu(self.inner(torch.cat((first, second), 1) - 0.5)))  # (N, 2, H, W)
        saliency = torch.stack([histogram_saliency(first), histogram_saliency(second)])
        return (saliency + correction.transpose(0, 1).unsqueeze(2)).softmax(0)
