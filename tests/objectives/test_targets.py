"""Targets: between the sources, and of them what the task wants."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from timfuse.objectives import exposed_target, functional_target, sharper_target
from timfuse.objectives.window import gaussian_filter

every_target = pytest.mark.parametrize("target", [exposed_target, sharper_target, functional_target])
symmetric_target = pytest.mark.parametrize("target", [exposed_target, sharper_target])
seeds = st.integers(0, 500)


def images(seed: int, count: int = 2, height: int = 24, width: int = 29) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, 1, height, width, generator=generator, dtype=torch.float64)


@every_target
@given(seed=seeds)
def test_of_two_equal_images_it_is_that_image(target, seed):
    image = images(seed)[0]
    torch.testing.assert_close(target(image, image), image, rtol=0, atol=1e-14)


@every_target
@given(seed=seeds)
def test_lies_between_the_sources(target, seed):
    first, second = images(seed)
    wanted = target(first, second)
    assert wanted.shape == first.shape
    assert (wanted >= torch.minimum(first, second) - 1e-14).all()
    assert (wanted <= torch.maximum(first, second) + 1e-14).all()


@every_target
@given(seed=seeds)
def test_turns_with_the_sources(target, seed):
    first, second = images(seed)
    for turn in (lambda image: image.flip(-1), lambda image: image.flip(-2), lambda image: image.mT):
        torch.testing.assert_close(target(turn(first), turn(second)), turn(target(first, second)))


@every_target
def test_images_of_a_batch_are_on_their_own(target):
    first, second = images(1)
    alone = [target(a[None], b[None]) for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(target(first, second), torch.cat(alone))


@symmetric_target
@given(seed=seeds)
def test_is_symmetric_in_the_sources(target, seed):
    first, second = images(seed)
    torch.testing.assert_close(target(first, second), target(second, first))


@every_target
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.3, 0.3)])
def test_flat_images_give_finite_grey_levels(target, dtype, values):
    first, second = (torch.full((1, 1, 20, 20), value, dtype=dtype) for value in values)
    wanted = target(first, second)
    assert wanted.dtype == dtype
    assert wanted.isfinite().all()
    assert wanted.min() >= 0
    assert wanted.max() <= 1


@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_exposed_by_hand_prefers_what_is_nearer_to_mid_grey(a, b):
    first, second = (torch.full((1, 1, 3, 4), value, dtype=torch.float64) for value in (a, b))
    p, q = (torch.exp(torch.tensor(-((value - 0.5) ** 2) / 0.08).double()).item() for value in (a, b))
    wanted = exposed_target(first, second)
    torch.testing.assert_close(wanted, torch.full_like(first, (p * a + q * b) / (p + q)))
    nearer, other = sorted((a, b), key=lambda value: abs(value - 0.5))
    assert abs(wanted[0, 0, 0, 0].item() - nearer) <= abs(wanted[0, 0, 0, 0].item() - other) + 1e-12


@given(seed=seeds)
def test_exposed_turns_over_with_the_grey_levels(seed):
    first, second = images(seed)
    torch.testing.assert_close(exposed_target(1 - first, 1 - second), 1 - exposed_target(first, second))


@pytest.mark.parametrize("swapped", [False, True])
def test_sharper_picks_the_sharp_side_of_each_half_blurred_image(swapped):
    sharp = images(2, height=64, width=96)[0]
    blurred = gaussian_filter(sharp, 13, 2.0, "reflect")
    left = torch.arange(96) < 48
    first, second = torch.where(left, sharp, blurred), torch.where(left, blurred, sharp)
    wanted = sharper_target(*((second, first) if swapped else (first, second)))
    away = (torch.arange(96) - 47.5).abs() > 12
    error, possible = (wanted - sharp).abs(), (blurred - sharp).abs()
    assert (error <= 0.01 * possible + 1e-12)[..., away].all()
    assert error.mean() < 0.05 * possible.mean()


@given(seed=seeds, scale=st.floats(0.05, 0.9))
def test_sharper_weighs_by_the_fourth_power_of_the_gradients(seed, scale):
    strong = 0.5 + 0.5 * (images(seed, height=40, width=40)[0] - 0.5)
    weak = 0.5 + scale * (strong - 0.5)
    expected = (strong + scale**4 * weak) / (1 + scale**4)
    torch.testing.assert_close(sharper_target(strong, weak), expected, rtol=0, atol=1e-3)


def test_sharper_averages_where_neither_image_has_detail():
    first, second = (torch.full((1, 1, 20, 20), value, dtype=torch.float64) for value in (0.2, 0.6))
    torch.testing.assert_close(sharper_target(first, second), torch.full_like(first, 0.4))


@given(seed=seeds)
def test_functional_is_the_anatomy_where_there_is_no_activity(seed):
    anatomy, _ = images(seed, height=48, width=80)
    activity = torch.zeros_like(anatomy)
    assert torch.equal(functional_target(anatomy, activity), anatomy)
    activity[..., :24] = 0.9  # the window ends 16 pixels on
    assert torch.equal(functional_target(anatomy, activity)[..., 40:], anatomy[..., 40:])


@given(seed=seeds, level=st.floats(0.4, 1.0))
def test_functional_is_nearly_the_activity_where_it_is_bright(seed, level):
    anatomy, _ = images(seed)
    activity = torch.full_like(anatomy, level)
    share = level**2 / (level**2 + 0.01)
    assert share > 0.94
    torch.testing.assert_close(functional_target(anatomy, activity), anatomy + share * (activity - anatomy))


def test_functional_counts_half_at_a_tenth():
    anatomy, activity = torch.full((1, 1, 20, 20), 0.8).double(), torch.full((1, 1, 20, 20), 0.1).double()
    torch.testing.assert_close(functional_target(anatomy, activity), torch.full_like(anatomy, 0.45))


def test_the_smallest_images():
    sharper_target(*torch.rand(2, 1, 1, 17, 17))
    with pytest.raises(ValueError, match="17 pixels, not 16"):
        sharper_target(*torch.rand(2, 1, 1, 17, 16))
