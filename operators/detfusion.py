"""The fusion network of DetFusion: a dense encoder for each source, and a decoder of both."""

import torch
from torch import Tensor, nn

from .activation import PReLU
from .borders import padded, reflected
from .envelope import enveloped, start_near_maximum

_LAYERS = 4


class _DenseEncoder(nn.Module):
    """Convolutions on one image; each reads the maps of all before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(reflected(channels * layer or 1, channels), PReLU()) for layer in range(_LAYERS)
        )

    def forward(self, image: Tensor) -> Tensor:  # (N, 1, H, W) -> (N, 4 C, H, W)
        x: Tensor = self.layers[0](image)
        for layer in self.layers[1:]:
            x = torch.cat((x, layer(x)), 1)
        return x


class DetFusionNetwork(nn.Module):
    """Two dense encoders and a decoder of the maps of both.

    Borders and activations are those of the other networks here.

    Args:
        channels: Feature maps C of each of the four layers of an encoder, 16 in the paper. The decoder has 4 C, 2 C
            and C maps.
        head: As in `FusionNetwork`, "direct" or "envelope".

    References:
        Sun et al., "DetFusion: A Detection-driven Infrared and Visible Image Fusion Network" (ACM MM 2022).

    Example:
        >>> DetFusionNetwork(4, "direct")(*torch.zeros(2, 1, 1, 30, 50)).shape
        torch.Size([1, 1, 30, 50])
    """

    def __init__(self, channels: int, head: str) -> None:
        super().__init__()
        self.multiple = 1
        self.first_encoder, self.second_encoder = _DenseEncoder(channels), _DenseEncoder(channels)
        self.envelope = head == "envelope"
        self.decoder = nn.Sequential(
            reflected(8 * channels, 4 * channels),
            PReLU(),
            reflected(4 * channels, 2 * channels),
            PReLU(),
            reflected(2 * channels, channels),
            PReLU(),
            reflected(channels, 3 if self.envelope else 1),
        )
        if self.envelope:
            start_near_maximum(self.decoder[-1])

    def forward(self, first: Tensor, second: Tensor, *, attention: Tensor | None = None) -> Tensor:
        """Fuse two aligned luma images; see `FusionNetwork.forward`."""
        height, width = first.shape[-2:]
        a, b = padded(first, self.multiple, least=2), padded(second, self.multiple, least=2)
        x = torch.cat((self.first_encoder(a), self.second_encoder(b)), 1)
        if attention is not None:
            x = x * (1 + padded(attention, self.multiple, least=2))
        x = self.decoder(x)
        if self.envelope:
            x = enveloped(x, a, b)
        return x[..., :height, :width]
