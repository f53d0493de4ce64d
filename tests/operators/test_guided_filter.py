"""The guided filter against its definition, pixel by pixel."""

import pytest
import torch

from timfuse.operators.guided_filter import box_mean, channel_range, guided_low_parts


def window(image, row, column, radius):
    rows = slice(max(0, row - radius), row + radius + 1)
    columns = slice(max(0, column - radius), column + radius + 1)
    return image[rows, columns]


def guided_filter(guide, x, radius, epsilon):
    """Equations 5, 6 and 8 of He, Sun and Tang for one image (H, W), window by window."""
    slope, offset = torch.zeros_like(x), torch.zeros_like(x)
    pixels = [(row, column) for row in range(x.shape[0]) for column in range(x.shape[1])]
    for pixel in pixels:
        g, v = window(guide, *pixel, radius), window(x, *pixel, radius)
        covariance = ((g - g.mean()) * (v - v.mean())).mean()
        slope[pixel] = covariance / (g.var(correction=0) + epsilon)
        offset[pixel] = v.mean() - slope[pixel] * g.mean()
    output = torch.zeros_like(x)
    for pixel in pixels:
        means = window(slope, *pixel, radius).mean(), window(offset, *pixel, radius).mean()
        output[pixel] = means[0] * guide[pixel] + means[1]
    return output


@pytest.mark.parametrize("size", [(7, 6), (1, 5), (1, 1)])
def test_parts_are_those_of_the_definition(normal, size):
    guide, x = normal(1, 1, *size), normal(1, 2, *size, seed=1)
    radii, epsilons = (1, 2, 8), (1e-1, 1e-4)
    parts = iter(guided_low_parts(guide, x, radii, epsilons))
    for radius in radii:
        for epsilon in epsilons:
            part = next(parts)
            for channel in range(2):
                expected = guided_filter(guide[0, 0], x[0, channel], radius, epsilon)
                torch.testing.assert_close(part[0, channel], expected, rtol=1e-8, atol=1e-8)
    assert next(parts, None) is None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-2)])
@pytest.mark.parametrize("value", [0.0, 1.0, 30.3])
def test_under_a_constant_guide_a_part_is_the_mean_of_means(normal, value, dtype, tolerance):
    guide, x = torch.full((1, 1, 40, 50), value, dtype=dtype), normal(1, 3, 40, 50).to(dtype)
    for radius in (2, 4, 8):
        for part in guided_low_parts(guide, x, (radius,), (1e-3, 1e-4)):
            expected = box_mean(box_mean(x, radius), radius)
            torch.testing.assert_close(part, expected, rtol=tolerance, atol=tolerance)


def test_features_that_are_the_guide_keep_their_edges():
    guide = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    guide[..., 6:] = 1.0
    (part,) = guided_low_parts(guide, guide, (2,), (1e-4,))
    torch.testing.assert_close(part, guide, rtol=0, atol=1e-2)


def test_channel_range(normal):
    x = normal(2, 5, 3, 4)
    spread = channel_range(x)
    assert spread.shape == (2, 1, 3, 4)
    torch.testing.assert_close(spread[1, 0, 2, 3], max(x[1, :, 2, 3]) - min(x[1, :, 2, 3]))
