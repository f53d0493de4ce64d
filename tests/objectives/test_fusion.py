"""Fusion losses: zero where they must be, symmetric, and with right derivatives of first and second order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from timfuse.data import SyntheticPairs, unit_range
from timfuse.objectives import (
    FusionLoss,
    exposed_target,
    functional_target,
    gradient_loss,
    gradient_magnitude,
    intensity_loss,
    saliency_weights,
    sharper_target,
    ssim_loss,
    structural_similarity,
)


def images(seed: int, count: int = 3, batch: int = 2, height: int = 8, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, batch, 1, height, width, generator=generator, dtype=torch.float64)


LOSSES = [FusionLoss(), FusionLoss(1, 0, 0), FusionLoss(0, 1, 0), FusionLoss(0, 0, 1)]


@pytest.mark.parametrize("loss", LOSSES)
def test_zero_where_all_images_are_equal(loss: FusionLoss) -> None:
    image = images(0)[0]
    assert abs(loss(image, image, image).item()) < 1e-12


@pytest.mark.parametrize("loss", LOSSES)
@given(seed=st.integers(0, 500))
def test_positive_and_symmetric_in_the_sources(loss: FusionLoss, seed: int) -> None:
    fused, first, second = images(seed)
    value = loss(fused, first, second)
    assert value > 0
    torch.testing.assert_close(value, loss(fused, second, first))
    torch.testing.assert_close(value, loss(fused.flip(-1), first.flip(-1), second.flip(-1)))


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives(loss: FusionLoss) -> None:
    fused, first, second = images(1, batch=1, height=6, width=7)
    fused.requires_grad_()
    assert torch.autograd.gradcheck(lambda image: loss(image, first, second), fused)
    assert torch.autograd.gradgradcheck(lambda image: loss(image, first, second), fused)


def test_intensity_by_hand() -> None:
    fused, first, second = (torch.full((1, 1, 2, 2), value).double() for value in (0.5, 0.2, 1.0))
    weights = torch.tensor([0.25, 0.75]).double().view(2, 1, 1, 1, 1)
    assert intensity_loss(fused, first, second, weights).item() == pytest.approx(0.25 * 0.3 + 0.75 * 0.5)


def test_intensity_is_least_at_the_source_of_larger_weight() -> None:
    _, first, second = images(2)
    weights = saliency_weights(first, second)
    chosen = torch.where(weights[0] > weights[1], first, second)
    least = intensity_loss(chosen, first, second, weights)
    for other in (first, second, (first + second) / 2, torch.maximum(first, second)):
        assert least < intensity_loss(other, first, second, weights)


def test_gradient_by_loops() -> None:
    fused, first, second = images(3, batch=1)
    f, a, b = (gradient_magnitude(image).flatten().tolist() for image in (fused, first, second))
    expected = sum(abs(x - max(y, z)) for x, y, z in zip(f, a, b, strict=True)) / len(f)
    assert gradient_loss(fused, first, second).item() == pytest.approx(expected)


def test_gradient_is_zero_at_the_only_source_with_edges() -> None:
    edges = images(4)[0]
    assert gradient_loss(edges, edges, torch.full_like(edges, 0.7)).item() == 0
    assert gradient_loss(edges + 0.1, edges, torch.full_like(edges, 0.7)).item() < 1e-12


def test_similarity_by_its_parts() -> None:
    fused, first, second = images(5)
    equal = torch.full((2, 1, 1, 1, 1), 0.5).double()
    parts = [structural_similarity(fused, source[None]).mean() for source in (first, second)]
    assert ssim_loss(fused, first, second, equal).item() == pytest.approx(1 - (parts[0] + parts[1]).item() / 2)


def test_terms_and_weights() -> None:
    trio = images(6)
    terms = FusionLoss(2.0, 3.0, 5.0).terms(*trio)
    total = 2 * terms["intensity"] + 3 * terms["gradient"] + 5 * terms["ssim"]
    torch.testing.assert_close(FusionLoss(2.0, 3.0, 5.0)(*trio), total)
    for name in terms:
        alone = FusionLoss(**{key: float(key == name) for key in terms})
        assert list(alone.terms(*trio)) == [name]
        torch.testing.assert_close(alone(*trio), terms[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    assert FusionLoss()(*images(7).to(dtype)).dtype == dtype


def test_descent_finds_a_fused_image_better_than_either_source() -> None:
    scene = SyntheticPairs("infrared-visible", 4, 48, seed=0)[2]
    first, second = (torch.from_numpy(unit_range(image))[None, None] for image in scene)
    loss = FusionLoss()
    fused = ((first + second) / 2).requires_grad_()
    start = loss(fused, first, second).item()
    optimiser = torch.optim.Adam([fused], lr=0.02)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, total_iters=150)
    for _ in range(150):
        optimiser.zero_grad()
        loss(fused, first, second).backward()
        optimiser.step()
        schedule.step()
    end = loss(fused, first, second).item()
    assert end < min(start, loss(first, first, second).item(), loss(second, first, second).item())


TARGETS = {
    "brighter": torch.maximum,
    "exposed": exposed_target,
    "sharper": sharper_target,
    "functional": functional_target,
}


@pytest.mark.parametrize("name", TARGETS)
@given(seed=st.integers(0, 500))
def test_a_target_s_term_is_the_mean_distance_to_it(name: str, seed: int) -> None:
    fused, first, second = images(seed, height=17, width=20)
    loss, target = FusionLoss(0, 0, 0, **{name: 2.0}), TARGETS[name](first, second)
    assert list(loss.terms(fused, first, second)) == [name]
    torch.testing.assert_close(loss(fused, first, second), 2 * (fused - target).abs().mean())
    assert loss(target, first, second) == 0
    assert loss((target + 0.1).clamp(0, 2), first, second).item() == pytest.approx(0.2)


@pytest.mark.parametrize("name", TARGETS)
def test_no_gradient_flows_into_a_target(name: str) -> None:
    fused, first, second = images(8, height=17, width=20).requires_grad_().unbind()
    value = FusionLoss(0, 0, 0, **{name: 1.0})(fused, first, second)
    gradients = torch.autograd.grad(value, (fused, first, second), allow_unused=True)
    assert gradients[1] is None
    assert gradients[2] is None
    target = TARGETS[name](first, second)
    torch.testing.assert_close(gradients[0], torch.sign(fused - target) / fused.numel())


@pytest.mark.parametrize("name", TARGETS)
def test_derivatives_of_a_target_s_term(name: str) -> None:
    fused, first, second = images(9, batch=1, height=17, width=17)
    fused.requires_grad_()
    loss = FusionLoss(0, 0, 0, **{name: 1.0})
    assert torch.autograd.gradcheck(lambda image: loss(image, first, second), fused)


@pytest.mark.parametrize("loss", [*LOSSES, FusionLoss(1, 1, 1, brighter=1, structure=1, range=1)])
def test_without_weights_they_are_those_of_the_saliency(loss: FusionLoss) -> None:
    fused, first, second = images(10)
    weights = saliency_weights(first, second)
    assert torch.equal(loss(fused, first, second, weights), loss(fused, first, second))
    given_weights, without = loss.terms(fused, first, second, weights), loss.terms(fused, first, second)
    assert given_weights.keys() == without.keys()
    assert all(torch.equal(given_weights[name], without[name]) for name in without)


@pytest.mark.parametrize("kept", [0, 1])
def test_weights_of_one_source_alone_leave_the_distance_to_it(kept: int) -> None:
    fused, *sources = images(11)
    weights = torch.tensor([1.0, 0.0]).double().roll(kept).view(2, 1, 1, 1, 1)
    terms = FusionLoss().terms(fused, *sources, weights)
    torch.testing.assert_close(terms["intensity"], (fused - sources[kept]).abs().mean())
    torch.testing.assert_close(terms["ssim"], 1 - structural_similarity(fused, sources[kept][None]).mean())
    assert FusionLoss(1, 0, 1)(sources[kept], *sources, weights).abs() < 1e-12


def test_weights_matter_to_intensity_and_ssim_only() -> None:
    fused, first, second = images(12, height=17, width=18)
    loss = FusionLoss(1, 1, 1, brighter=1, exposed=1, sharper=1, functional=1, structure=1, information=1, range=1)
    even, without = loss.terms(fused, first, second, torch.tensor(0.5)), loss.terms(fused, first, second)
    assert even.keys() == without.keys()
    assert {name for name in even if not torch.equal(even[name], without[name])} == {"intensity", "ssim"}


def test_the_gradient_reaches_the_weights() -> None:
    fused, first, second = images(13, batch=1)
    weights = saliency_weights(first, second).requires_grad_()
    assert torch.autograd.gradcheck(lambda value: FusionLoss(1, 1, 1)(fused, first, second, value), weights)
    (gradient,) = torch.autograd.grad(FusionLoss(1, 0, 0)(fused, first, second, weights), weights)
    torch.testing.assert_close(gradient, (fused - torch.stack([first, second])).abs() / fused.numel())
