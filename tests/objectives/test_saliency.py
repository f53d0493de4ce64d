"""Histogram saliency against its definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from timfuse.objectives import histogram_saliency, saliency_weights


def images(seed: int, count: int = 2, height: int = 5, width: int = 7) -> Tensor:
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(image: Tensor) -> Tensor:
    """S(i) = sum over all pixels of |i - j|, scaled to [0, 1]."""
    levels = [round(255 * value) for value in image.flatten().tolist()]
    saliency = [sum(abs(i - j) for j in levels) for i in levels]
    low, high = min(saliency), max(saliency)
    return torch.tensor([(s - low) / (high - low) for s in saliency], dtype=image.dtype).view_as(image)


@given(st.integers(0, 1000))
def test_definition(seed: int) -> None:
    batch = images(seed)
    expected = torch.stack([by_definition(image) for image in batch])
    torch.testing.assert_close(histogram_saliency(batch), expected, rtol=0, atol=1e-12)


def test_a_small_hot_target_is_the_most_salient() -> None:
    image = torch.full((1, 1, 10, 10), 0.2)
    image[..., 4, 4] = 1.0
    saliency = histogram_saliency(image)
    assert saliency[..., 4, 4] == 1
    assert saliency.sum() == 1


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_nothing_stands_out_of_a_constant_image(value: float) -> None:
    assert not histogram_saliency(torch.full((2, 1, 4, 4), value)).any()


@given(st.integers(0, 1000))
def test_invariants(seed: int) -> None:
    first, second = images(seed), images(seed + 5000)
    weights = saliency_weights(first, second)
    assert weights.shape == (2, 2, 1, 5, 7)
    torch.testing.assert_close(weights.sum(0), torch.ones_like(first))
    assert 0.2689 <= weights.min() <= weights.max() <= 0.7311
    torch.testing.assert_close(saliency_weights(second, first), weights.flip(0))
    torch.testing.assert_close(histogram_saliency(1 - first), histogram_saliency(first), rtol=0, atol=2e-2)
    torch.testing.assert_close(histogram_saliency(first.flip(-1)), histogram_saliency(first).flip(-1))
    # an image's saliency does not depend on its batch
    torch.testing.assert_close(histogram_saliency(first)[1:], histogram_saliency(first[1:]))


def test_large_images_are_exact_in_single_precision() -> None:
    image = (torch.arange(640 * 480).view(1, 1, 480, 640) % 256) / 255
    level = (image * 255).round().double()
    distance = (level - 127.5).square()  # a uniform histogram makes S a parabola
    expected = (distance - distance.min()) / (distance.max() - distance.min())
    torch.testing.assert_close(histogram_saliency(image).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    assert saliency_weights(images(0).to(dtype), images(1).to(dtype)).dtype == dtype
