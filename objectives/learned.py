"""The fusion loss whose weights of the two sources are learnt: what `learned_loss` adapts to a downstream task."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .saliency import histogram_saliency

_CHANNELS = 8


class SourceWeights(nn.Module):
    """Weights of the two sources at each pixel, by a small network that sees both.

    It begins with TIM's weights, the softmax over the sources' histogram saliencies, to the bit, and learns what to
    add to the saliencies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(2, _CHANNELS, 5, padding=2, padding_mode="reflect")
        self.outer = nn.Conv2d(_CHANNELS, 2, 3, padding=1, padding_mode="reflect")
        nn.init.zeros_(self.outer.weight)
        assert self.outer.bias is not None
        nn.init.zeros_(self.outer.bias)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Weigh two sources.

        Args:
            first: (N, 1, H, W) in [0, 1].
            second: (N, 1, H, W) in [0, 1].

        Returns:
            (2, N, 1, H, W), first and second source, summing to 1 over the first dimension.
        """
        correction = self.outer(F.relu(self.inner(torch.cat((first, second), 1) - 0.5)))  # (N, 2, H, W)
        saliency = torch.stack([histogram_saliency(first), histogram_saliency(second)])
        return (saliency + correction.transpose(0, 1).unsqueeze(2)).softmax(0)
