"""Sampling and merging of scales against loops and against the order of operations as published."""

import pytest
import torch
from torch.nn import functional as F

from timfuse.operators.sampling import BlurPool, ResidualDown, ResidualUp, SelectiveKernelFusion, shuffled, unshuffled


@pytest.mark.parametrize("size", [(6, 8), (2, 4)])
def test_blur_pool_is_a_binomial_mean_of_every_second_neighbourhood(normal, size):
    x = normal(2, 3, *size)
    height, width = size
    expected = torch.zeros(2, 3, height // 2, width // 2, dtype=torch.float64)
    for row in range(0, height, 2):
        for column in range(0, width, 2):
            for i, vertical in ((-1, 0.25), (0, 0.5), (1, 0.25)):
                for j, horizontal in ((-1, 0.25), (0, 0.5), (1, 0.25)):
                    # Only the row above the first is ever read: mirrored there, -1 is 1.
                    pixel = x[..., abs(row + i), abs(column + j)]
                    expected[..., row // 2, column // 2] += vertical * horizontal * pixel
    torch.testing.assert_close(BlurPool(3).double()(x), expected, rtol=1e-13, atol=1e-13)


def test_down_halves_the_size_and_doubles_the_channels(normal):
    assert ResidualDown(3).double()(normal(2, 3, 6, 8)).shape == (2, 6, 3, 4)


def test_up_is_the_published_order_of_interpolation_and_convolution(randomise, normal):
    up = randomise(ResidualUp(6))
    x = normal(2, 6, 3, 4)
    interpolated = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    expected = up.convolved(x) + up.plain(interpolated)
    assert expected.shape == (2, 3, 6, 8)
    torch.testing.assert_close(up(x), expected, rtol=1e-12, atol=1e-12)


def test_selective_kernel_fusion_weighs_each_channel_between_its_inputs(randomise, normal):
    fusion = randomise(SelectiveKernelFusion(5, 3))
    features = [normal(2, 5, 3, 4, seed=seed) for seed in range(3)]
    merged = fusion(features)
    stacked = torch.stack(features)
    assert (merged <= stacked.amax(0) + 1e-12).all()
    assert (merged >= stacked.amin(0) - 1e-12).all()
    # One triple of weights per image and channel explains all of its pixels, and sums to one.
    for image in range(2):
        for channel in range(5):
            pixels = stacked[:, image, channel].flatten(1).T  # (HW, 3)
            weights = torch.linalg.lstsq(pixels, merged[image, channel].flatten(), driver="gelsd").solution
            torch.testing.assert_close(pixels @ weights, merged[image, channel].flatten())
            assert weights.sum().item() == pytest.approx(1.0)


def test_selective_kernel_fusion_of_equal_inputs_is_that_input(randomise, normal):
    x = normal(2, 5, 3, 4)
    torch.testing.assert_close(randomise(SelectiveKernelFusion(5, 3))([x] * 3), x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_shuffling_is_torchs(normal, factor):
    x = normal(2, 3, 4 * factor, 5 * factor)
    blocks = unshuffled(x, factor)
    torch.testing.assert_close(blocks, F.pixel_unshuffle(x, factor), rtol=0, atol=0)
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(shuffled(blocks, factor), F.pixel_shuffle(blocks, factor), rtol=0, atol=0)
    torch.testing.assert_close(shuffled(blocks, factor), x, rtol=0, atol=0)
