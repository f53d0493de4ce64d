import pytest
import torch

from timfuse.cost.budget import Budget
from timfuse.cost.cost_model import CostModel
from timfuse.cost.cost_penalty import Charges, open_charges
from timfuse.search.search_config import SpaceSection

COSTS = torch.tensor([[1.0, 5.0, 2.0]], dtype=torch.float64)


def one_of(cost):
    """A model in which every network costs so much."""
    return CostModel("ms", cost, torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("weight", "budget", "value"),
    [(0.5, None, 20.0), (0.0, 50.0, 0.0), (0.0, 32.0, 0.7 * 0.25), (0.5, 50.0, 20.0), (0.5, 20.0, 20.0 + 0.7)],
)
def test_term_in_the_outer_loss(weight, budget, value):
    charges = Charges({"ms": one_of(40.0)}, weight, budget and Budget("ms", budget), 0.7)
    term, logged = charges.term(torch.full((1, 2, 3), 1 / 3))
    assert term.item() == pytest.approx(value)
    assert logged == {"latency_ms": pytest.approx(40)}


def test_the_budget_is_charged_for_in_its_own_unit():
    models = {"ms": one_of(40.0), "params": CostModel("params", 3000.0, torch.zeros(1, 3, dtype=torch.float64))}
    term, logged = Charges(models, 0.1, Budget("params", 2000), 1.0).term(torch.full((1, 2, 3), 1 / 3))
    assert term.item() == pytest.approx(0.1 * 40 + 0.5)
    assert logged == {"latency_ms": pytest.approx(40), "parameters": pytest.approx(3000)}


@pytest.mark.parametrize(("weight", "budget", "slope"), [(0.7, None, 0.7), (0.0, 2.0, 0.5 / 2), (0.7, 2.0, 0.7 + 0.25)])
def test_gradient_by_the_logits_is_that_of_a_softmax(weight, budget, slope):
    charges = Charges({"ms": CostModel("ms", 9.0, COSTS)}, weight, budget and Budget("ms", budget), 0.5)
    logits = torch.tensor([[[0.1, -0.4, 0.8]]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(charges.term((logits / 0.5).softmax(-1))[0], logits)
    p, costs = (logits / 0.5).softmax(-1).detach(), COSTS.unsqueeze(1)
    expected = slope * p * (costs - (p * costs).sum(-1, keepdim=True)) / 0.5
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_only_what_counts_is_measured_or_counted(monkeypatch):
    space = SpaceSection(channels=2, cells=("successive",), operators=("identity", "spatial_attention_k3"))
    monkeypatch.setattr(
        "timfuse.cost.cost_penalty.measure_space", lambda *arguments, **options: (one_of(1.0), {"measured": 1.0}, [])
    )

    def opened(weight, budget):
        sizes = {"height": 16, "width": 16, "known": None, "device": torch.device("cpu")}
        return open_charges(space.bare, space.operators, weight=weight, budget=budget, budget_weight=1.0, **sizes)

    assert opened(0.0, None) is None
    for weight, budget, kinds in (
        (0.1, None, ["ms"]),
        (0.0, Budget("ms", 1), ["ms"]),
        (0.0, Budget("FLOPs", 1), ["FLOPs"]),
        (0.1, Budget("params", 1), ["ms", "params"]),
    ):
        charges = opened(weight, budget)
        assert list(charges.models) == kinds
        assert charges.table == ({"measured": 1.0} if "ms" in kinds else {})
