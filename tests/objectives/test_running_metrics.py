"""The interface of torchmetrics gives the means of the functions."""

import pytest
import torch

from timfuse.objectives.metrics import BASKET, FIELD_METRICS, fusion_metrics
from timfuse.runtime.errors import UserError

pytest.importorskip("torchmetrics", reason="the extra tasks is not installed")
from timfuse.objectives.metrics.running import FusionMetrics


def pictures(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (3, count, 1, 48, 52), dtype=torch.uint8, generator=generator)


def test_batches_of_any_size_give_the_mean_over_all_pairs():
    metrics, every = FusionMetrics(BASKET), pictures(5, seed=0)
    for start, stop in ((0, 2), (2, 5)):
        metrics.update(*every[:, start:stop])
    expected = fusion_metrics(*every, BASKET)
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(
        {name: values.mean().item() for name, values in expected.items()}
    )
    metrics.reset()
    metrics.update(*every[:, :1])
    assert metrics.compute()["VIF"] == pytest.approx(expected["VIF"][0].item())
    assert metrics(*every[:, 1:2])["VIF"] == pytest.approx(expected["VIF"][1].item())  # of this batch alone


def test_undefined_scores_are_left_out():
    fused, first, second = pictures(2, seed=1)
    first[0] = second[0] = 7
    metrics = FusionMetrics(("CC",))
    assert metrics(fused[:1], first[:1], second[:1])["CC"].isnan()
    metrics.update(fused[1:], first[1:], second[1:])
    assert metrics.compute()["CC"] == pytest.approx(fusion_metrics(fused[1:], first[1:], second[1:])["CC"].item())


def test_the_states_move_with_the_metric():
    assert FusionMetrics().names == tuple(FIELD_METRICS)
    metrics = FusionMetrics().to("meta")
    assert {metrics.totals.device.type, metrics.counts.device.type} == {"meta"}


def test_an_unknown_metric():
    with pytest.raises(UserError, match="unknown metric nothing"):
        FusionMetrics(("nothing",)).update(*pictures(1, seed=0))
