"""Smears: closed forms of their share and of the objective."""

import pytest
import torch

from timfuse.objectives.smear import smear_excess, smear_share


def ramp(levels_per_pixel: float, width: int = 96) -> torch.Tensor:
    line = levels_per_pixel / 255 * torch.arange(width, dtype=torch.float64)
    return line.expand(1, 1, 64, width)


def test_a_slope_is_allowed_up_to_half_more_than_that_of_the_sources_and_half_a_level():
    for own, source, expected in ((1.9, 1.0, 0.0), (2.1, 1.0, 1.0), (0.4, 0.0, 0.0), (0.6, 0.0, 1.0)):
        fused, first, flat = ramp(own), ramp(source), torch.zeros_like(ramp(0))
        share = smear_share(fused, first, flat)
        assert share.item() == pytest.approx(expected, abs=0.45 if expected else 0)
        assert share.item() == smear_share(fused, flat, first).item()
    excess = smear_excess(ramp(2.0), ramp(1.0), ramp(0.0))
    assert excess.item() == pytest.approx(2.0 - 1.2 - 0.2, abs=0.15)
    assert smear_excess(ramp(1.3), ramp(1.0), ramp(0.0)).item() == pytest.approx(0, abs=1e-3)


def test_fine_texture_is_no_smear():
    texture = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).round()
    flat = torch.full_like(texture, 0.5)
    stripes = torch.arange(64).remainder(2).float().expand(1, 1, 64, 64)
    assert smear_share(stripes, flat, flat).item() == 0
    assert smear_share(texture, texture, flat).item() == 0


def test_the_objective_pulls_a_slope_down_and_nothing_else():
    fused = ramp(3.0).clone().requires_grad_()
    smear_excess(fused, ramp(0.0), ramp(0.0)).backward()
    assert fused.grad is not None
    assert fused.grad[..., -30:].sum() > 0 > fused.grad[..., :30].sum()
    still = ramp(1.0).clone().requires_grad_()
    smear_excess(still, ramp(1.0), ramp(0.0)).backward()
    assert still.grad is not None
    assert still.grad.abs().max() == 0
