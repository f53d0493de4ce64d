"""What task networks see: luma, colours, one source, both, and mixtures."""

import pytest
import torch

from timfuse.data import PairBatch
from timfuse.finetune.task_images import blend, channels_of, shown


@pytest.fixture
def batch():
    torch.manual_seed(0)
    first, second = torch.rand(2, 3, 1, 6, 5) * 0.5 + 0.2
    return PairBatch(first, second, colour=torch.rand(3, 3, 6, 5) * 0.2 - 0.1)


def test_blends_are_of_one_source_of_both_or_of_anything_between():
    torch.manual_seed(0)
    shares = blend(torch.ones(4000, 1, 2, 2), torch.zeros(4000, 1, 2, 2))
    assert torch.equal(shares, shares[..., :1, :1].expand_as(shares))  # one share for each crop
    share = shares[:, 0, 0, 0]
    for fixed in (0.0, 0.5, 1.0):
        assert (share == fixed).double().mean().item() == pytest.approx(0.25, abs=0.03)
    other = share[(share != 0) & (share != 0.5) & (share != 1)]
    assert torch.histc(other, 4, 0, 1) == pytest.approx(torch.full((4,), len(other) / 4), rel=0.2)


def test_a_fused_image_has_the_colours_of_the_pair_and_is_clipped(batch):
    fused = torch.full((3, 1, 6, 5), 0.95)
    seen = shown(fused, batch, 3)
    assert torch.equal(seen, (fused + batch.colour).clamp(0, 1))
    assert torch.equal(shown(fused * 2 - 1.5, batch, 1), (fused * 2 - 1.5).clamp(0, 1))


@pytest.mark.parametrize(("images", "coloured"), [("first", "second"), ("second", "first")])
def test_a_source_without_colours_is_grey(batch, images, coloured):
    luma = getattr(batch, images)
    assert torch.equal(shown(luma, batch, 3, images=images, coloured=coloured), luma.expand(-1, 3, -1, -1))
    assert torch.equal(shown(luma, batch, 3, images=images, coloured="both"), luma.expand(-1, 3, -1, -1))
    assert torch.equal(shown(luma, batch, 3, images=images, coloured=images), (luma + batch.colour).clamp(0, 1))


def test_a_network_for_both_sees_the_grey_source_and_the_coloured_one(batch):
    assert [channels_of("both", colour=colour) for colour in (False, True)] == [2, 4]
    assert torch.equal(shown(batch.first, batch, 2, images="both"), torch.cat((batch.first, batch.second), 1))
    seen = shown(batch.first, batch, 4, images="both", coloured="first")
    assert torch.equal(seen, torch.cat((batch.second, (batch.first + batch.colour).clamp(0, 1)), 1))


def test_gradients_reach_the_fused_image_where_it_is_not_clipped(batch):
    fused = torch.full((3, 1, 6, 5), 0.5, requires_grad=True)
    shown(fused, batch, 3).sum().backward()
    assert torch.equal(fused.grad, torch.full_like(fused, 3))
