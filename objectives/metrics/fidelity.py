"""VIF, the visual information of the sources in the fused picture."""

import torch
from torch import Tensor

from .bands import band_sum
from .pictures import Pictures
from .windows import Window, smooth, window_moments

_WINDOWS = tuple(Window(taps, taps / 5) for taps in (17, 9, 5, 3))  # scale by scale
_NOISE = 2.0  # variance of the visual noise
_FLAT = 1e-10  # smaller variances count as 0
SMALLEST_SIDE = 41  # leaves 3 pixels at the last scale


def visual_information_fidelity(pictures: Pictures) -> Tensor:
    """Compute the visual information fidelity in the pixel domain, VIFp(A, F) + VIFp(B, F).

        VIFp = Σ log(1 + g² var(A) / (v + 2)) / Σ log(1 + var(A) / 2),
        g = cov(A, F) / var(A) or 0 where that is negative,  v = var(F) - g cov(A, F)

    The sums are over all windows of four scales. The model of the fused picture is g A plus noise. The ratio compares
    the information about the scene that an eye with noise of variance 2 takes from F and from A.

    Args:
        pictures: Fused pictures and their sources, at least 41 pixels high and wide.

    Returns:
        (N,), at least 0; NaN if a source is flat.

    References:
        Sheikh and Bovik, "Image information and visual quality" (IEEE TIP 2006).
    """
    rows, count = pictures.rows, pictures.sources.shape[1]
    kept = total = torch.zeros((), device=rows.device, dtype=torch.float64)
    for scale, window in enumerate(_WINDOWS):
        if scale:
            rows = smooth(rows, window, step=2)
        for moments in window_moments(rows, count, window):
            _, _, fused_variance, source_variance, covariance = moments
            total = total + _information(torch.threshold_(source_variance.float(), _FLAT, 0.0).div_(_NOISE))  # (2, K)
            # In place where possible, because these are the largest tensors of all metrics.
            covariance.clamp_(min=0)
            gain = covariance / torch.threshold_(
                source_variance + _FLAT, 2 * _FLAT, torch.inf
            )  # 0 where a source is flat
            unexplained = torch.sub(fused_variance.add_(_NOISE), covariance.mul_(gain), out=covariance)
            explained = gain.square_().mul_(source_variance).div_(unexplained)
            kept = kept + _information(explained.float())  # (2, N)
    return (kept / total).sum(0)  # 0 / 0 for a flat source


def _information(ratio: Tensor) -> Tensor:
    """Sum log(1 + ratio) over rows and columns, (h, 2, N, W) to (2, N). Single precision suffices for terms >= 0."""
    return band_sum(ratio.log1p_())
