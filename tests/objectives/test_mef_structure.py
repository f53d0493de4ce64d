"""MEF-SSIM's structure term: closed forms, invariances, and its gradient."""

import math

import pytest
import torch
from torch.nn import functional as F

from timfuse.objectives.mef_structure import mef_structure


def texture(seed: int, size: int = 64) -> torch.Tensor:
    noise = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.2 + 0.6 * F.avg_pool2d(noise, 3, 1, 1)


def test_a_copy_of_the_only_structure_is_perfect_whatever_its_brightness():
    image = texture(0)
    flat = torch.full_like(image, 0.4)
    for first, second in ((image, flat), (flat, image)):
        torch.testing.assert_close(mef_structure(image, first, second), torch.ones(2).double(), atol=2e-3, rtol=0)
        torch.testing.assert_close(
            mef_structure(image, first, second), mef_structure(image + 0.1, first, second), atol=1e-9, rtol=0
        )
    assert (mef_structure(flat, image, flat) < 0.4).all()
    assert (mef_structure(1 - image, image, flat) < 0).all()


def test_a_scaled_copy_has_the_value_of_the_formula():
    """With F = a I and a flat second source, D = I: 2 a v + C2 over (a² + 1) v + C2 in every window."""
    rows = torch.arange(64, dtype=torch.float64).remainder(2)  # of equal variance in every window, almost
    image = (0.25 + 0.5 * rows).expand(1, 1, 64, 64)
    flat = torch.full_like(image, 0.5)
    scale = 0.5
    variance, c2 = 0.25**2, 0.03**2
    first_scale = (2 * scale * variance + c2) / ((scale**2 + 1) * variance + c2)
    # The other scales are flat: stripes of one pixel average to a constant, where the score is 1.
    expected = (first_scale + 2) / 3
    assert mef_structure(scale * image, image, flat).item() == pytest.approx(expected, abs=1e-3)


def test_sources_may_be_swapped_and_pictures_of_one_batch_are_alone():
    fused, first, second = (texture(seed) for seed in range(3))
    both = mef_structure(fused, first, second)
    torch.testing.assert_close(mef_structure(fused, second, first), both)
    for index in range(2):
        alone = mef_structure(*(image[index : index + 1] for image in (fused, first, second)))
        torch.testing.assert_close(alone[0], both[index])


def test_the_gradient_is_that_of_finite_differences():
    fused, first, second = (texture(seed, 44)[:1] for seed in range(3))
    fused.requires_grad_()
    direction = torch.randn(fused.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(mef_structure(fused, first, second).sum(), fused)
    with torch.no_grad():
        up, down = (mef_structure(fused + step * direction, first, second) for step in (1e-6, -1e-6))
    assert (gradient * direction).sum().item() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-5)


@pytest.mark.parametrize("size", [11, 21, 22, 43, 44])
def test_a_copy_of_the_only_structure_is_best_at_any_size(size):
    image = texture(0, size)[:1]
    assert mef_structure(image, image, torch.full_like(image, 0.5)).item() == pytest.approx(1, abs=1e-3)


def test_images_that_are_smaller_than_a_window_are_refused():
    with pytest.raises(ValueError, match="needs images of at least 11 pixels, not 10"):
        mef_structure(*torch.zeros(3, 1, 1, 10, 64))


def of_windows(fused: torch.Tensor, *sources: torch.Tensor) -> float:
    """Compute the score of one scale as it is defined: window by window, with structures as vectors."""
    places = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-places.square() / (2 * 1.5**2))
    shares = torch.outer(line, line) / line.sum() ** 2
    scores = []
    for top in range(fused.shape[-2] - 10):
        for left in range(fused.shape[-1] - 10):
            windows = [image[0, 0, top : top + 11, left : left + 11] for image in (fused, *sources)]
            own, *structures = ((shares.sqrt() * (w - (shares * w).sum())).flatten() for w in windows)
            lengths = [structure.norm() for structure in structures]
            consistency = sum(structures).norm() / (sum(lengths) + 1e-4)
            power = min(math.tan(math.pi / 2 * min(consistency.item(), 1 - 1e-3)), 10)
            stronger = [(length + 1e-4) ** power for length in lengths]
            units = [structure / (length + 1e-4) for structure, length in zip(structures, lengths, strict=True)]
            mixed = sum(share / sum(stronger) * unit for share, unit in zip(stronger, units, strict=True))
            desired = max(lengths) * mixed / mixed.norm()
            c2 = 0.03**2
            scores.append((2 * own @ desired + c2) / (own @ own + desired @ desired + c2))
    return torch.stack(scores).mean().item()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_number_of_sources_have_the_score_of_the_definition(count):
    fused, *sources = (texture(seed, 16)[:1, :, :14] for seed in range(count + 1))
    sources[-1] = 0.3 * sources[-1] + 0.5 * sources[0]  # of another contrast, and like another one
    score = mef_structure(fused, *sources)
    assert score.item() == pytest.approx(of_windows(fused, *sources), abs=1e-9)
    torch.testing.assert_close(mef_structure(fused, *reversed(sources)), score)


def test_the_structure_of_a_third_source_is_wanted_too():
    stripes = torch.arange(48).remainder(8).double().div(7).expand(1, 1, 48, 48)
    flat = torch.full_like(stripes, 0.5)
    assert mef_structure(stripes, flat, flat, stripes).item() == pytest.approx(1, abs=1e-2)
    assert mef_structure(flat, flat, flat).item() > 0.99 > 0.4 > mef_structure(flat, flat, flat, stripes).item()
