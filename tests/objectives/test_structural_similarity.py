"""Structural similarity and gradient magnitude against kornia."""

import kornia
import pytest
import torch
from torch import Tensor

from timfuse.objectives import gradient_magnitude, structural_similarity


def images(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [(6, 6), (7, 31), (32, 20)])
def test_similarity_equals_kornia(size: tuple[int, int]) -> None:
    fused, sources = images(0, 2, 1, *size), images(1, 2, 2, 1, *size)
    expected = torch.stack([kornia.metrics.ssim(fused, source, 11) for source in sources])
    torch.testing.assert_close(structural_similarity(fused, sources), expected, rtol=0, atol=1e-10)


def test_similarity_of_an_image_with_itself_is_one() -> None:
    fused = images(0, 1, 1, 12, 12)
    torch.testing.assert_close(structural_similarity(fused, fused[None]), torch.ones(1, 1, 1, 12, 12).double())


def test_single_precision_is_close_enough() -> None:
    fused, sources = images(0, 2, 1, 64, 64), images(1, 2, 2, 1, 64, 64)
    single = structural_similarity(fused.float(), sources.float())
    torch.testing.assert_close(single.double(), structural_similarity(fused, sources), rtol=0, atol=1e-4)


def test_first_use_in_inference_mode_leaves_training_possible() -> None:
    with torch.inference_mode():
        structural_similarity(torch.rand(1, 1, 19, 23), torch.rand(1, 1, 1, 19, 23))
    fused = torch.rand(1, 1, 19, 23, requires_grad=True)
    structural_similarity(fused, torch.rand(1, 1, 1, 19, 23)).sum().backward()
    assert fused.grad is not None


def test_too_small() -> None:
    with pytest.raises(ValueError, match="at least 6 pixels"):
        structural_similarity(torch.rand(1, 1, 5, 9), torch.rand(1, 1, 1, 5, 9))


def test_magnitude_equals_kornia() -> None:
    image = images(0, 2, 1, 9, 14)
    torch.testing.assert_close(gradient_magnitude(image), kornia.filters.sobel(image, eps=1e-6), rtol=0, atol=1e-12)


def test_magnitude_of_a_ramp_is_its_slope() -> None:
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
    inner = gradient_magnitude((0.03 * rows + 0.04 * columns)[None, None])[..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.full((1, 1, 6, 7), 0.05), rtol=0, atol=2e-5)


def test_flat_regions_have_a_finite_derivative() -> None:
    flat = torch.full((1, 1, 6, 6), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(gradient_magnitude(flat).sum(), flat)
    assert not gradient.any()
