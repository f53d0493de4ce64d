"""The sum of the correlations of differences (SCD) as a training objective."""

import torch
from torch import Tensor

_EPSILON = (5 / 255) ** 2  # added to variances, so that nearly flat crops have little influence


def correlation_of_differences(fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Compute SCD = corr(F - B, A) + corr(F - A, B).

    The difference between the fused image and one source should be like the other source.

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1], like the sources A and B.

    Returns:
        (N,), in [-2, 2].

    References:
        Aslantas and Bendes, "A new image quality metric for image fusion: the sum of the correlations of differences"
        (AEÜ 2015).

    Example:
        >>> first, second = torch.eye(8)[None, None], torch.zeros(1, 1, 8, 8)
        >>> print(f"{correlation_of_differences(first + second, first, second).item():.2f}")  # corr(A, A) + corr(B, B)
        1.00
    """
    return _correlation(fused - second, first) + _correlation(fused - first, second)


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    variances = (x.square().mean(1) + _EPSILON) * (y.square().mean(1) + _EPSILON)
    return (x * y).mean(1) / torch.sqrt(variances)
