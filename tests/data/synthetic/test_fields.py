"""Fields and blurs against their closed forms."""

import numpy as np
import pytest

from timfuse.data.synthetic.fields import disc_blur, field, gaussian_blur, spline_weights, spread, step


def test_splines_sum_to_one_and_reproduce_a_ramp() -> None:
    places = np.linspace(0, 1, 50)
    weights = spline_weights(places, 7)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(weights @ (np.arange(10) - 1), 7 * places, atol=1e-5)
    constant = spread(np.full((6, 8), 3.0), 20, 30)
    np.testing.assert_allclose(constant, 3, atol=1e-5)


def test_a_field_has_unit_deviation() -> None:
    fields = [field(np.random.default_rng(seed), (60, 60), 20, 20) for seed in range(8)]
    assert abs(np.std(fields) - 1) < 0.1


@pytest.mark.parametrize("blur", [lambda image: gaussian_blur(image, 2.0), lambda image: disc_blur(image, 3.3)])
def test_a_blur_keeps_a_constant_and_spreads_a_point_evenly(blur) -> None:
    np.testing.assert_allclose(blur(np.full((2, 31, 40), 0.7, np.float32)), 0.7, atol=1e-5)
    point = np.zeros((31, 41), np.float32)
    point[15, 20] = 1
    spread_out = blur(point)
    np.testing.assert_allclose(spread_out.sum(), 1, atol=1e-5)
    np.testing.assert_allclose(spread_out, spread_out[::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize("radius", [0.8, 2.0, 4.6, 9.0])
def test_a_disc_is_flat_and_of_its_radius(radius: float) -> None:
    point = np.zeros((41, 45), np.float32)
    point[20, 22] = 1
    seen = disc_blur(point, radius)
    distance = np.hypot(*np.mgrid[-20:21, -22:23])
    assert np.abs(seen[distance > radius + 0.5]).max() < 1e-6
    inside = seen[distance <= radius - 0.5]
    np.testing.assert_allclose(inside, inside[0], atol=1e-6)
    np.testing.assert_allclose(1 / seen.max(), np.pi * radius**2, rtol=0.25 / radius)


def test_a_blur_of_less_than_half_a_pixel_is_none() -> None:
    image = np.random.default_rng(0).random((9, 9), np.float32)
    np.testing.assert_array_equal(disc_blur(image, 0.4), image)


def test_steps_rise_or_fall() -> None:
    values = np.array([-1, 0, 0.5, 1, 2], np.float32)
    np.testing.assert_allclose(step(values, 0, 1), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(step(values, 1, 0), [1, 1, 0.5, 0, 0])
