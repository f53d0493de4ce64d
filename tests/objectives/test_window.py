"""Gaussian windows: the same as convolutions, and refused where they do not fit."""

import pytest
import torch
from kornia.filters import gaussian_blur2d

from timfuse.objectives.window import gaussian_filter


@pytest.mark.parametrize(("taps", "sigma"), [(3, 0.6), (11, 1.5), (17, 3.4)])
def test_the_window_is_a_gaussian_blur(taps: int, sigma: float) -> None:
    image = torch.rand(2, 1, 24, 31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blurred = gaussian_blur2d(image, taps, (sigma, sigma), "reflect")
    torch.testing.assert_close(gaussian_filter(image, taps, sigma, "reflect"), blurred)
    inside = slice(taps // 2, -(taps // 2))
    torch.testing.assert_close(gaussian_filter(image, taps, sigma, "valid"), blurred[..., inside, inside])


@pytest.mark.parametrize("border", ["reflect", "valid"])
@pytest.mark.parametrize("size", [(193, 40), (30, 241), (385, 300)])
def test_long_lines_are_filtered_as_short_ones(border: str, size: tuple[int, int]) -> None:
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blurred = gaussian_blur2d(image, (11, 11), (1.5, 1.5), "reflect")
    inside = slice(5, -5) if border == "valid" else slice(None)
    torch.testing.assert_close(gaussian_filter(image, 11, 1.5, border), blurred[..., inside, inside])


@pytest.mark.parametrize(("border", "smallest"), [("reflect", 6), ("valid", 11)])
def test_images_smaller_than_the_window_are_refused(border: str, smallest: int) -> None:
    assert gaussian_filter(torch.ones(1, 1, smallest, 20), 11, 1.5, border).mean() == pytest.approx(1)
    with pytest.raises(ValueError, match=f"at least {smallest} pixels"):
        gaussian_filter(torch.ones(1, 1, smallest - 1, 20), 11, 1.5, border)


def test_a_window_made_in_inference_mode_serves_a_training() -> None:
    with torch.inference_mode():
        gaussian_filter(torch.ones(1, 1, 23, 23), 7, 1.1, "reflect")
    image = torch.ones(1, 1, 23, 23, requires_grad=True)
    gaussian_filter(image, 7, 1.1, "reflect").sum().backward()
    assert image.grad is not None
