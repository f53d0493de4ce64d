"""Synthetic focus: each part is sharp in the picture that is focused on it."""

import numpy as np
import pytest

from timfuse.data import luma, make_focus
from timfuse.data.synthetic import make_focus_stack, make_focus_with_truth
from timfuse.data.synthetic.fields import disc_blur, gaussian_blur
from timfuse.data.synthetic.focus import arrange

SEEDS = range(30)


def energy(image: np.ndarray, where: np.ndarray) -> float:
    down, across = np.gradient(luma(image).astype(float))
    return float((down**2 + across**2)[where].mean())


def test_pictures_are_a_function_of_their_seed() -> None:
    one, again, other = make_focus(1), make_focus(1), make_focus(2)
    for image, same, another in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(image, same)
        assert not np.array_equal(image, another)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 70), (120, 40)])
def test_any_size(height: int, width: int) -> None:
    for seed in range(12):
        for image in make_focus(seed, height=height, width=width):
            assert image.shape == (height, width, 3)
            assert image.dtype == np.uint8
            assert np.ptp(image) > 60


def test_what_is_near_is_sharp_in_the_near_picture_and_what_is_far_in_the_far_one() -> None:
    near_parts, far_parts = [], []
    for seed in SEEDS:
        near, far = make_focus([seed], height=96, width=112)
        layers = arrange(np.random.default_rng([seed]), 96, 112)
        foreground = layers[-1].share > 0.5
        hidden = np.maximum.reduce([layer.share for layer in layers[1:]])
        background = disc_blur(hidden, 8.0) < 1e-3  # well beside whatever is before it
        near_parts.append(energy(near, foreground) / energy(far, foreground))
        if background.mean() > 0.05:
            far_parts.append(energy(far, background) / energy(near, background))
    assert len(far_parts) > len(SEEDS) // 2
    assert min(near_parts) > 1
    assert min(far_parts) > 1
    assert min(np.median(near_parts), np.median(far_parts)) > 2


def test_both_pictures_show_the_same_scene() -> None:
    """Blur moves light about: where that is evened out, the pictures agree."""
    for seed in SEEDS:
        near, far = (gaussian_blur(luma(image).astype(np.float32), 6.0) for image in make_focus(seed))
        assert abs(near.mean() - far.mean()) < 15
        assert np.corrcoef(near.ravel(), far.ravel())[0, 1] > 0.7


def test_the_sharp_picture_shows_both_parts_as_the_picture_that_is_focused_on_them() -> None:
    for seed in SEEDS:
        near, far, sharp = make_focus_with_truth([seed], height=96, width=112)
        for image, same in zip(make_focus([seed], height=96, width=112), (near, far), strict=True):
            np.testing.assert_array_equal(image, same)
        layers = arrange(np.random.default_rng([seed]), 96, 112)
        foreground = layers[-1].share > 0.999
        background = disc_blur(np.maximum.reduce([layer.share for layer in layers[1:]]), 8.0) < 1e-3
        for picture, where in ((near, foreground), (far, background)):
            if where.any():
                differences = picture[where].astype(float) - sharp[where]
                assert np.sqrt(np.mean(differences**2)) < 5  # the noise of the picture, in grey levels


def test_a_stack_has_focal_planes_between_those_of_the_pair() -> None:
    near, mid, far, sharp = make_focus_stack(1)
    for image, same in zip((near, far, sharp), make_focus_with_truth(1), strict=True):
        np.testing.assert_array_equal(image, same)
    everywhere = np.ones(mid.shape[:2], bool)
    differences = [np.abs(luma(one).astype(float) - luma(mid)).mean() for one in (near, far)]
    assert min(differences) > 0.5
    assert energy(mid, everywhere) < energy(sharp, everywhere)
