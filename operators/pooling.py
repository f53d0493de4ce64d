"""The mean of feature maps over a whole image, through which all pixels of an image reach each other."""

from torch import Tensor, nn


class GlobalMean(nn.Module):
    """The mean over rows and columns of the sum of some feature maps.

    A module of its own, so that an image can be processed in tiles and still be averaged as a whole.
    """

    def forward(self, *maps: Tensor) -> Tensor:  # each (N, C, H, W) -> (N, C, 1, 1)
        total = maps[0].mean((2, 3), keepdim=True)
        for x in maps[1:]:
            total = total + x.mean((2, 3), keepdim=True)
        return total
