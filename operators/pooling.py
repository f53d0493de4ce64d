"""The mean of feature maps over a whole image."""

from torch import Tensor, nn


class GlobalMean(nn.Module):
    """Average the sum of some feature maps over rows and columns.

    It is a module so that hooks can replace the mean of a tile by the mean of the whole image.
    """

    def forward(self, *maps: Tensor) -> Tensor:  # each (N, C, H, W) -> (N, C, 1, 1)
        total = maps[0].mean((2, 3), keepdim=True)
        for x in maps[1:]:
            total = total + x.mean((2, 3), keepdim=True)
        return total
