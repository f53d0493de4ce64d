"""Metrics of pictures whose values are known."""

import math

import pytest
import torch
from torch import Tensor

from timfuse.objectives.metrics import METRICS, fusion_metrics


def columns(*levels: int, rows: int = 48) -> Tensor:
    """A picture whose rows are all alike."""
    return torch.tensor(levels, dtype=torch.uint8).expand(1, 1, rows, -1)


def value(name: str, fused: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> float:
    first = fused if first is None else first
    second = first if second is None else second
    return fusion_metrics(fused, first, second, [name])[name].item()


@pytest.mark.parametrize(("levels", "bits"), [([7], 0), ([3, 200], 1), ([0, 1, 2, 255], 2), (range(256), 8)])
def test_entropy(levels, bits):
    assert value("EN", columns(*levels)) == pytest.approx(bits, abs=1e-12)


def test_information_about_itself(picture):
    fused = picture(40, 50, 0)
    assert value("MI", fused) == pytest.approx(2 * value("EN", fused), rel=1e-12)
    assert value("NMI", fused) == pytest.approx(2, rel=1e-12)


def test_information_of_the_independent():
    stripes = columns(*range(0, 240, 5))  # 48 x 48
    assert value("MI", stripes, stripes.mT) == pytest.approx(0, abs=1e-12)
    assert value("NMI", stripes, stripes.mT) == pytest.approx(0, abs=1e-12)
    assert value("MI", stripes, stripes.mT, stripes) == pytest.approx(math.log2(48))


def test_information_does_not_depend_on_the_levels(picture):
    fused, first = picture(40, 50, 0), picture(40, 50, 1)
    assert value("MI", 255 - fused, first) == pytest.approx(value("MI", fused, first), rel=1e-12)


def test_standard_deviation():
    assert value("SD", columns(100, 110)) == pytest.approx(5, rel=1e-12)
    assert value("SD", columns(255)) == 0


def test_spatial_frequency():
    stripes = columns(*[0, 10] * 24)
    assert value("SF", stripes) == pytest.approx(10, rel=1e-12)
    board = torch.where(torch.eye(2, dtype=torch.bool).repeat(24, 24), 10, 0).to(torch.uint8)[None, None]
    assert value("SF", board) == pytest.approx(10 * math.sqrt(2), rel=1e-12)


def test_average_gradient_of_a_ramp():
    ramp = (3 * torch.arange(30)[:, None] + 4 * torch.arange(30)).to(torch.uint8)[None, None]
    assert value("AG", ramp) == pytest.approx(5 / math.sqrt(2), rel=1e-7)


def test_correlation(picture):
    fused = picture(40, 50, 0)
    assert value("CC", fused) == pytest.approx(1, rel=1e-12)
    assert value("CC", fused, fused, 255 - fused) == pytest.approx(0, abs=1e-12)


def test_sum_of_correlations_of_differences():
    first = columns(*range(48))
    second = 2 * first.mT.contiguous()
    assert value("SCD", first + second, first, second) == pytest.approx(2, rel=1e-12)
    assert value("SCD", first, first, second) == pytest.approx(
        1 / math.sqrt(5), rel=1e-12
    )  # corr(A - B, A) + corr(0, B)
    assert value("SCD", first + 9, first, second) == pytest.approx(1 / math.sqrt(5), rel=1e-12)  # a flat difference


def test_signal_to_noise():
    fused = columns(20, 90)
    assert value("PSNR", fused, fused, fused + 10) == pytest.approx(10 * math.log10(255**2 / 50), rel=1e-12)
    assert value("PSNR", fused) == math.inf


def test_fidelity(picture):
    first, flat = picture(60, 50, 0) // 2, torch.full((1, 1, 60, 50), 77, dtype=torch.uint8)
    assert value("VIF", first) == pytest.approx(2, rel=1e-6)
    assert value("VIF", flat, first, first) == pytest.approx(0, abs=1e-9)
    assert value("VIF", 255 - first, first) == pytest.approx(0, abs=0.1)
    assert value("VIF", 2 * first, first) > 2.2


def test_edge_preservation():
    """Equal edges that are all strong and equally turned: the sigmoid of the orientation is left."""
    stripes = columns(*[0, 0, 200, 200] * 12)
    assert value("Qabf", stripes) == pytest.approx(0.9994 * 0.9879 / (1 + math.exp(-22 * 0.2)), rel=1e-6)
    assert value("Qabf", torch.zeros_like(stripes), stripes) == pytest.approx(0, abs=1e-3)


def test_similarity(picture):
    fused = picture(180, 181, 0)
    for name in ("SSIM", "MS-SSIM"):
        assert value(name, fused) == pytest.approx(1, rel=1e-6)
        assert value(name, fused, fused, 255 - fused) < 0.8
    c1 = 2.55**2
    expected = (2 * 50 * 90 + c1) / (50**2 + 90**2 + c1)
    assert value("SSIM", columns(*[50] * 20), columns(*[90] * 20)) == pytest.approx(expected, rel=1e-6)


def test_features_and_visible_difference_of_equal_pictures(picture):
    fused = picture(40, 50, 0)
    assert value("FMI", fused) == 1
    assert value("Qcv", fused) == pytest.approx(0, abs=1e-20)


def test_worse_pictures_score_worse(triple):
    """From the fused picture towards noise every metric that compares with the sources turns for the worse."""
    fused, first, second = triple(180, 190)
    noise = torch.randint(0, 256, fused.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    better, worse = (fusion_metrics(x, first, second, list(METRICS)) for x in (fused, fused // 2 + noise // 2))
    for name in ("MI", "SCD", "VIF", "Qabf", "SSIM", "CC", "PSNR", "NMI", "MS-SSIM", "FMI", "Qcv"):
        assert (better[name] > worse[name]).item() == METRICS[name].higher_is_better, name
