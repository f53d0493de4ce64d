"""The band matrices against a plain convolution in two dimensions."""

import pytest
import torch
from torch.nn import functional as F

from timfuse.objectives.metrics.windows import Window, smooth, window_moments


def plain(rows, window, step=1):
    """(H, C, W) filtered with the outer product of the taps."""
    offsets = torch.arange(window.taps, dtype=torch.float64) - (window.taps - 1) / 2
    taps = torch.exp(-offsets.square() / (2 * window.sigma**2))
    kernel = torch.outer(taps, taps)
    images = rows.transpose(0, 1)[:, None]
    return F.conv2d(images, (kernel / kernel.sum())[None, None], stride=step)[:, 0].transpose(0, 1)


def rows(height, channels, width):
    return torch.rand(height, channels, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("window", [Window(17, 3.4), Window(3, 0.6), Window(11, 1.5)])
@pytest.mark.parametrize("size", [(17, 17), (18, 64), (63, 40), (50, 131)])
def test_smooth(size, window, step):
    x = rows(size[0], 3, size[1])
    torch.testing.assert_close(smooth(x, window, step), plain(x, window, step), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("fused", "sources"), [(1, 1), (2, 2), (3, 1)])
def test_moments(fused, sources):
    x, window = rows(45, 2 * sources + fused, 33), Window(9, 1.8)
    x[:, 0] = 100.0  # a flat source
    (moments,) = window_moments(x, sources, window)
    a, f = x[:, : 2 * sources].unflatten(1, (2, sources)), x[:, None, 2 * sources :]

    def filtered(maps):
        return plain(maps.flatten(1, 2), window).unflatten(1, maps.shape[1:3])

    torch.testing.assert_close(moments.source_mean, filtered(a))
    torch.testing.assert_close(moments.fused_mean, filtered(f))
    for actual, product, first, second in (
        (moments.source_variance, a * a, a, a),
        (moments.fused_variance, f * f, f, f),
        (moments.covariance, a * f, a, f),
    ):
        expected = filtered(product) - filtered(first) * filtered(second)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)
