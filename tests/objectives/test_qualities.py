"""The qualities of fusion as objectives: closed forms, derivatives, and agreement with the metrics they stand for."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from timfuse.data import SyntheticPairs, unit_range
from timfuse.objectives import (
    FusionLoss,
    correlation_of_differences,
    edge_transfer,
    mutual_information,
    structural_similarity,
    visual_fidelity,
)
from timfuse.objectives.metrics import fusion_metrics


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Two (1, 1, 96, 96) images of one synthetic scene, in whole grey levels, float64."""
    scene = SyntheticPairs("infrared-visible", 1, 96, seed=3)[0]
    first, second = (torch.from_numpy(unit_range(image)).double().view(1, 1, 96, 96) for image in scene)
    return first, second


Quality = Callable[[Tensor, Tensor, Tensor], Tensor]
QUALITIES: dict[str, Quality] = {
    "VIF": lambda fused, first, second: visual_fidelity(fused, torch.stack([first, second])).sum(0),
    "Qabf": edge_transfer,
    "SCD": correlation_of_differences,
    "MI": lambda fused, first, second: mutual_information(fused, torch.stack([first, second])).sum(0),
}


@pytest.mark.parametrize(("name", "tolerance"), [("VIF", 0.005), ("Qabf", 0.06), ("SCD", 0.1)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_a_quality_is_close_to_its_metric(
    pair: tuple[Tensor, Tensor], name: str, tolerance: float, share: float
) -> None:
    first, second = pair
    fused = ((share * first + (1 - share) * torch.maximum(first, second)) * 255).round() / 255
    metric = fusion_metrics(*((255 * image).round() for image in (fused, first, second)), names=(name,))[name]
    torch.testing.assert_close(QUALITIES[name](fused, first, second), metric, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", QUALITIES)
def test_derivatives(pair: tuple[Tensor, Tensor], name: str) -> None:
    first, second = (image[..., :48, :48] for image in pair)
    # Away from the corners of histogram bins, clamps and equal gradients, where one side's derivative is taken.
    noise = torch.rand(first.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fused = (0.3 * first + 0.4 * second + 0.1 + 0.1 * noise).requires_grad_()
    direction = torch.randn(fused.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(QUALITIES[name](fused, first, second).sum(), fused)
    with torch.no_grad():
        step = 1e-8 * direction
        ahead, behind = (QUALITIES[name](fused + sign * step, first, second).sum() for sign in (1, -1))
    assert ((ahead - behind) / 2e-8).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-3)


def test_an_image_carries_all_information_about_itself(pair: tuple[Tensor, Tensor]) -> None:
    first, _ = pair
    assert visual_fidelity(first, first[None]).item() == pytest.approx(1, abs=0.005)
    assert edge_transfer(first, first, first).item() == pytest.approx(0.9994 * 0.9879 / (1 + math.exp(-7.5)), abs=0.02)


def test_an_inverted_image_carries_nothing(pair: tuple[Tensor, Tensor]) -> None:
    first, _ = pair
    assert visual_fidelity(1 - first, first[None]).item() < 1e-3


def test_half_black_half_white_has_one_bit() -> None:
    image = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    image[..., :4] = 1
    information = mutual_information(image, torch.stack([image, image.transpose(-1, -2)]))
    torch.testing.assert_close(information, torch.tensor([[1.0], [0.0]]).double(), rtol=0, atol=1e-6)


def test_the_sum_of_uncorrelated_sources_has_the_largest_correlation_of_differences() -> None:
    across = torch.linspace(0, 0.5, 32, dtype=torch.float64).expand(1, 1, 32, 32)
    down = across.transpose(-1, -2)
    exact = 2 * across.var(correction=0) / (across.var(correction=0) + (5 / 255) ** 2)
    torch.testing.assert_close(correlation_of_differences(across + down, across, down), exact.view(1))
    assert correlation_of_differences((across + down) / 2, across, down) < exact


@pytest.mark.parametrize("name", ["structure", "fidelity", "edges", "differences", "information"])
def test_qualities_see_the_image_as_it_will_be_saved(pair: tuple[Tensor, Tensor], name: str) -> None:
    first, second = (image.float() for image in pair)
    fused = 2 * torch.maximum(first, second) - 0.4
    loss = FusionLoss(intensity=0, gradient=0, ssim=0, **{name: 1.0})
    torch.testing.assert_close(loss(fused, first, second), loss(fused.clamp(0, 1), first, second))


def test_the_range_term_is_the_mean_distance_to_the_unit_interval() -> None:
    fused = torch.tensor([-0.5, 0.2, 0.8, 1.25]).view(1, 1, 2, 2)
    loss = FusionLoss(intensity=0, gradient=0, ssim=0, range=2.0)
    assert loss(fused, fused, fused).item() == pytest.approx(2 * 0.75 / 4)


def test_what_is_poor_in_correlation_and_information_counts_more(pair: tuple[Tensor, Tensor]) -> None:
    first, second = pair
    fused = torch.maximum(first, second)
    terms = FusionLoss(structure=1, differences=1, information=1).terms(fused, first, second)
    similarity = structural_similarity(fused, torch.stack([first, second]))
    torch.testing.assert_close(terms["structure"], 1 - similarity.mean())
    torch.testing.assert_close(terms["differences"], (2 - QUALITIES["SCD"](fused, first, second)).square().mean())
    information = QUALITIES["MI"](fused, first, second)
    torch.testing.assert_close(terms["information"], -torch.log(information + 0.01).mean())


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_a_number_stays_that(place):
    images = [*torch.rand(2, 1, 1, 8, 8)]
    images[place][0, 0, 2, 3] = math.nan
    fused, source = (image.requires_grad_() for image in images)
    value = mutual_information(fused, source[None])
    assert value.isnan().item() == (place == 0)  # sources are checked when they are read
