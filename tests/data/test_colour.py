"""Colour of fused images."""

import kornia
import numpy as np
import pytest
import torch

from timfuse.data import chroma_source, colour_like, coloured_pixels, is_colour, luma_of, to_pixels
from timfuse.data.colour import colour_shift
from timfuse.data.images import Pixels

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 37), dtype=np.uint8)
RGB = RNG.integers(0, 256, (24, 37, 3), dtype=np.uint8)
OTHER = RNG.integers(0, 256, (24, 37, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (24, 37, 3), dtype=np.uint16)
LIKE_GREY = np.dstack([GREY] * 3)


def ycbcr(pixels: Pixels) -> np.ndarray:
    """Y, Cb - 1/2 and Cr - 1/2 of BT.601 in float64, (H, W, 3)."""
    image = pixels / np.iinfo(pixels.dtype).max
    luma = image @ [0.299, 0.587, 0.114]
    return np.stack([luma, (image[..., 2] - luma) / 1.772, (image[..., 0] - luma) / 1.402], axis=-1)


def rgb(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
    green = -(0.299 * 1.402 * red + 0.114 * 1.772 * blue) / 0.587
    return np.stack([luma + 1.402 * red, luma + green, luma + 1.772 * blue], axis=-1)


def test_colour_is_a_difference_between_channels() -> None:
    assert not is_colour(GREY)
    assert not is_colour(LIKE_GREY)
    assert is_colour(RGB)
    for channel in range(3):
        almost = LIKE_GREY.copy()
        almost[-1, -1, channel] ^= 1
        assert is_colour(almost)


@pytest.mark.parametrize(
    ("colour", "chroma"),
    [
        ("first", ("first", "grey", "first")),
        ("second", ("grey", "second", "second")),
        ("both", ("both", "both", "both")),
    ],
)
def test_which_chroma(colour: str, chroma: tuple[str, str, str]) -> None:
    assert chroma_source(colour, RGB, LIKE_GREY) == chroma[0]
    assert chroma_source(colour, GREY, RGB) == chroma[1]
    assert chroma_source(colour, RGB, OTHER) == chroma[2]
    assert chroma_source(colour, GREY, LIKE_GREY) == "grey"


@pytest.mark.parametrize("pixels", [GREY, LIKE_GREY, RGB, DEEP])
def test_luma_is_not_rounded(pixels: Pixels) -> None:
    scaled = pixels / np.iinfo(pixels.dtype).max
    expected = scaled if pixels.ndim == 2 else scaled @ [0.299, 0.587, 0.114]
    luma = luma_of(pixels)
    assert luma.dtype == torch.float32
    np.testing.assert_allclose(luma.numpy(), expected, atol=2e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_clipped_and_rounded_to_the_nearest(dtype: type) -> None:
    full = np.iinfo(dtype).max
    image = torch.tensor([-0.3, 0.0, 0.49 / full, 0.51 / full, 0.5, 1.0, 1.7])
    pixels = to_pixels(image, dtype)
    assert pixels.dtype == dtype
    assert pixels.tolist() == [0, 0, 0, 1, (full + 1) // 2, full, full]
    assert image[0] == -0.3  # the argument stays as it was


@pytest.mark.parametrize("pixels", [RGB, DEEP])
@pytest.mark.parametrize("chroma", ["first", "second", "both"])
def test_an_image_with_its_own_luma_is_itself(pixels: Pixels, chroma: str) -> None:
    coloured = colour_like(luma_of(pixels), pixels, pixels, chroma)
    np.testing.assert_array_equal(to_pixels(coloured, pixels.dtype), pixels)


@pytest.mark.parametrize("chroma", ["first", "second"])
def test_one_chroma_is_kept_in_closed_form(chroma: str) -> None:
    fused = luma_of(GREY)
    source = RGB if chroma == "first" else OTHER
    _, blue, red = np.moveaxis(ycbcr(source), -1, 0)
    expected = rgb(fused.double().numpy(), blue, red)
    np.testing.assert_allclose(colour_like(fused, RGB, OTHER, chroma).numpy(), expected.clip(0, 1), atol=5e-7)


def test_two_chroma_are_blended_in_closed_form() -> None:
    fused = luma_of(GREY)
    for second in (OTHER, DEEP):
        one, other = ycbcr(RGB)[..., 1:], ycbcr(second)[..., 1:]
        blended = (one * abs(one) + other * abs(other)) / (abs(one) + abs(other))
        expected = rgb(fused.double().numpy(), blended[..., 0], blended[..., 1])
        actual = colour_like(fused, RGB, second, "both").numpy()
        np.testing.assert_allclose(actual, expected.clip(0, 1), atol=5e-7)


def test_a_grey_source_leaves_the_blend_to_the_other() -> None:
    fused = luma_of(GREY)
    for grey in (GREY, LIKE_GREY):
        torch.testing.assert_close(
            colour_like(fused, RGB, grey, "both"), colour_like(fused, RGB, grey, "first"), atol=1e-6, rtol=0
        )
    torch.testing.assert_close(
        colour_like(fused, GREY, LIKE_GREY, "both"), fused.unsqueeze(-1).expand(-1, -1, 3), atol=1e-6, rtol=0
    )


def test_without_colour_the_luma_is_left_alone() -> None:
    fused = luma_of(GREY)
    assert colour_like(fused, GREY, LIKE_GREY, "grey") is fused


def test_the_way_through_kornias_ycbcr_agrees() -> None:
    fused = 0.4 + 0.2 * luma_of(GREY)
    pale = (RGB // 8 + 100).astype(np.uint8)  # nothing is clipped
    image = kornia.color.rgb_to_ycbcr(torch.from_numpy(pale).permute(2, 0, 1) / 255)
    image[0] = fused
    expected = kornia.color.ycbcr_to_rgb(image).permute(1, 2, 0)
    torch.testing.assert_close(colour_like(fused, GREY, pale, "second"), expected, atol=1e-5, rtol=0)


def test_coloured_pixels_have_the_fused_luma() -> None:
    fused = 0.4 + 0.2 * luma_of(GREY)
    pale, other = ((pixels // 8 + 100).astype(np.uint8) for pixels in (RGB, OTHER))
    for chroma in ("first", "second", "both"):
        coloured = colour_like(fused, pale, other, chroma)
        torch.testing.assert_close(coloured @ torch.tensor([0.299, 0.587, 0.114]), fused, atol=1e-6, rtol=0)


@pytest.mark.parametrize("chroma", ["first", "second", "both", "grey"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_the_fast_way_to_coloured_pixels_rounds_as_the_other(chroma: str, depth: type) -> None:
    draw = np.random.default_rng(0)
    first, second = draw.integers(0, np.iinfo(depth).max, (2, 40, 50, 3), endpoint=True).astype(depth)
    first.flags.writeable = False  # as arrays of files are
    fused = torch.from_numpy(draw.random((40, 50), dtype=np.float32))
    slow = to_pixels(colour_like(fused, first, second, chroma), depth)
    fast = coloured_pixels(fused, first, second, chroma, depth)
    assert (fast.dtype, fast.shape) == (slow.dtype, slow.shape)
    different = np.abs(fast.astype(int) - slow)  # halves, up to rounding in float32, can go either way
    assert different.max() <= 1
    assert (different > 0).mean() < 1e-3


@pytest.mark.parametrize(
    ("first", "second", "chroma"),
    [(GREY, RGB, "second"), (DEEP, GREY, "first"), (RGB, OTHER, "both"), (RGB, OTHER, "grey"), (RGB, GREY, "second")],
)
def test_a_luma_and_its_shift_are_the_coloured_image(first: Pixels, second: Pixels, chroma: str) -> None:
    fused = torch.rand(24, 37)
    expected = colour_like(fused, first, second, chroma)
    expected = expected[..., None].expand(-1, -1, 3) if expected.ndim == 2 else expected
    shift = colour_shift(first, second, chroma)
    torch.testing.assert_close((fused[..., None] + shift).clamp(0, 1), expected, atol=1e-6, rtol=0)


def test_three_sources_share_the_chroma_by_its_strength():
    """R - Y and B - Y of the fused image are sums of squares over sums of magnitudes, with their signs."""
    sources = [np.array([[colour]], np.float64) for colour in ((0.6, 0.4, 0.3), (0.2, 0.4, 0.5), (0.5, 0.5, 0.5))]
    pixel = coloured_pixels(torch.full((1, 1), 0.4), *sources[:2], "both", np.float64, further=sources[2:])[0, 0]
    for channel in (0, 2):
        shifts = np.array([source[0, 0, channel] - source[0, 0] @ (0.299, 0.587, 0.114) for source in sources])
        expected = 0.4 + (shifts * np.abs(shifts)).sum() / np.abs(shifts).sum()
        assert pixel[channel] == pytest.approx(expected, abs=1e-6)
    assert pixel @ (0.299, 0.587, 0.114) == pytest.approx(0.4, abs=1e-6)
    assert chroma_source("both", *(np.zeros((2, 2), np.uint8),) * 2, np.eye(3, dtype=np.uint8)[None]) == "both"
