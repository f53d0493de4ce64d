"""Synthetic exposures: lights in the short one, shadows in the long one, and the same scene in both."""

import numpy as np
import pytest

from timfuse.data import luma, make_exposures
from timfuse.data.synthetic import make_exposure_stack

PAIRS = [make_exposures([2, seed], height=96, width=112) for seed in range(40)]


def detail(image: np.ndarray, where: np.ndarray) -> float:
    """Spread of the grey levels of the masked pixels around their neighbours'."""
    down, across = np.gradient(luma(image).astype(float))
    return float(np.hypot(down, across)[where].mean())


def test_exposures_are_a_function_of_their_seed() -> None:
    for image, same, other in zip(PAIRS[1], make_exposures([2, 1], height=96, width=112), PAIRS[2], strict=True):
        np.testing.assert_array_equal(image, same)
        assert not np.array_equal(image, other)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 70), (120, 40)])
def test_any_size(height: int, width: int) -> None:
    for seed in range(12):
        for image in make_exposures(seed, height=height, width=width):
            assert image.shape == (height, width, 3)
            assert image.dtype == np.uint8


def test_the_long_exposure_is_brighter_everywhere() -> None:
    for under, over in PAIRS:
        assert (over.astype(int) - under > -12).mean() > 0.999  # but for noise
        assert over.mean() > under.mean() + 40


def test_lights_are_kept_in_the_short_and_shadows_in_the_long_exposure() -> None:
    lights, shadows = [], []
    for under, over in PAIRS:
        clipped = (luma(over) == 255) & (luma(under) < 250)
        dark = luma(under) < 30
        assert (luma(under) == 255).mean() < 0.02
        if clipped.mean() > 0.02:
            lights.append(detail(under, clipped) - detail(over, clipped))
        if dark.mean() > 0.02:
            shadows.append(detail(over, dark) - detail(under, dark))
    assert min(len(lights), len(shadows)) > len(PAIRS) // 2
    assert min(lights) > 0
    assert min(shadows) > 0
    assert np.median(shadows) > 5


def test_scenes_are_in_colour() -> None:
    assert np.median([np.ptp(over.astype(int), axis=2).max() for _, over in PAIRS]) > 40


def test_a_stack_has_exposures_between_those_of_the_pair() -> None:
    stack = make_exposure_stack(1, 4)
    for image, same in zip((stack[0], stack[-1]), make_exposures(1), strict=True):
        np.testing.assert_array_equal(image, same)
    means = [image.mean() for image in stack]
    assert means == sorted(means)
