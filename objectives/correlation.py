"""Correlation with what each source alone contributes, as a training objective."""

import torch
from torch import Tensor

_EPSILON = (5 / 255) ** 2  # variance added to both images, so that nearly flat crops do not decide


def correlation_of_differences(fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """SCD: the correlation of F − B with A plus that of F − A with B.

    What is left of the fused image when one source is taken away should be the other one (Aslantas and Bendes, "A new
    image quality metric for image fusion: the sum of the correlations of differences", AEÜ 2015).

    Args:
        fused: (N, 1, H, W) in [0, 1].
        first: (N, 1, H, W) in [0, 1].
        second: (N, 1, H, W) in [0, 1].

    Returns:
        (N,) in [-2, 2].
    """
    return _correlation(fused - second, first) + _correlation(fused - first, second)


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    variances = (x.square().mean(1) + _EPSILON) * (y.square().mean(1) + _EPSILON)
    return (x * y).mean(1) / torch.sqrt(variances)
