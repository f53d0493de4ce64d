import pytest
import torch

from timfuse.cost import (
    Choices,
    CostModel,
    CostPenalty,
    Decisions,
    DeploymentTarget,
    SearchSpace,
    open_cost_penalty,
    parse_budget,
)

COSTS = torch.tensor([[1.0, 5.0, 2.0]], dtype=torch.float64)
EVEN = Decisions(torch.full((1, 2, 3), 1 / 3))


def one_of(cost):
    """A model in which every network costs so much."""
    return CostModel("ms", cost, torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("weight", "budget", "value"),
    [(0.5, None, 20.0), (0.0, "50ms", 0.0), (0.0, "32ms", 0.7 * 0.25), (0.5, "50ms", 20.0), (0.5, "20ms", 20.7)],
)
def test_term_in_the_outer_loss(weight, budget, value):
    penalty = CostPenalty({"ms": one_of(40.0)}, weight, budget and parse_budget(budget), 0.7)
    term, logged = penalty.term(EVEN)
    assert term.item() == pytest.approx(value)
    assert logged == {"latency_ms": pytest.approx(40)}


@pytest.mark.parametrize(("budget", "value"), [("50ms", 0.04), ("32ms", 0.0625), ("40ms", 0.0)])
def test_a_budget_to_be_reached_attracts_from_both_sides(budget, value):
    penalty = CostPenalty({"ms": one_of(40.0)}, 0.0, parse_budget(budget), 0.7, reached=True)
    assert penalty.term(EVEN)[0].item() == pytest.approx(0.7 * value)


def test_a_budget_is_to_be_reached_where_widths_are_searched():
    target = DeploymentTarget(32, 32, torch.device("cpu"))
    operators = ("identity", "plain_k3")
    fixed = SearchSpace((4, 6), ("stage",) * 2, 1, operators, "none", "half", "bands", (0, 1))
    searched = SearchSpace(((2, 4), (4, 6)), ("stage",) * 2, 1, operators, "none", "half", "bands", (0, 1))
    budget = parse_budget("5kparams")
    for space in (fixed, searched):
        penalty = open_cost_penalty(space, target, weight=0.0, budget=budget, budget_weight=1.0)
        assert penalty.reached == (space is searched)


def test_the_budget_counts_in_its_own_unit():
    models = {"ms": one_of(40.0), "params": CostModel("params", 3000.0, torch.zeros(1, 3, dtype=torch.float64))}
    term, logged = CostPenalty(models, 0.1, parse_budget("2kparams"), 1.0).term(EVEN)
    assert term.item() == pytest.approx(0.1 * 40 + 0.5)
    assert logged == {"latency_ms": pytest.approx(40), "parameters": pytest.approx(3000)}


@pytest.mark.parametrize(
    ("weight", "budget", "slope"), [(0.7, None, 0.7), (0.0, "2ms", 0.5 / 2), (0.7, "2ms", 0.7 + 0.25)]
)
def test_gradient_by_the_logits_is_that_of_a_softmax(weight, budget, slope):
    penalty = CostPenalty({"ms": CostModel("ms", 9.0, COSTS)}, weight, budget and parse_budget(budget), 0.5)
    logits = torch.tensor([[[0.1, -0.4, 0.8]]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(penalty.term(Decisions((logits / 0.5).softmax(-1)))[0], logits)
    p, costs = (logits / 0.5).softmax(-1).detach(), COSTS.unsqueeze(1)
    expected = slope * p * (costs - (p * costs).sum(-1, keepdim=True)) / 0.5
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("weight", "budget", "kinds"),
    [
        (0.1, None, ["ms"]),
        (0.0, "1ms", ["ms"]),
        (0.0, "1FLOPs", ["FLOPs"]),
        (0.1, "1params", ["ms", "params"]),
    ],
)
def test_only_what_counts_is_measured_or_counted(weight, budget, kinds):
    space = SearchSpace(2, ("successive",), 1, ("identity", "spatial_attention_k3"))
    target = DeploymentTarget(16, 16, torch.device("cpu"))
    table = {
        "rest successive 2 batch full direct 16x16": 3.0,
        "identity 2x16x16 batch": 0.5,
        "spatial_attention_k3 2x16x16 batch": 2.0,
    }
    budget = budget and parse_budget(budget)
    penalty = open_cost_penalty(space, target, weight=weight, budget=budget, budget_weight=2.0, table=table)
    assert (penalty.weight, penalty.budget, penalty.budget_weight) == (weight, budget, 2.0)
    assert list(penalty.models) == kinds
    assert penalty.table == (table if "ms" in kinds else {})
    if "ms" in kinds:
        assert penalty.models["ms"].predict(Choices([[1]])) == 5.0


def test_without_weight_and_budget_there_is_no_penalty():
    space = SearchSpace(2, ("successive",), 1, ("identity", "spatial_attention_k3"))
    target = DeploymentTarget(16, 16, torch.device("cpu"))
    assert open_cost_penalty(space, target, weight=0.0, budget=None, budget_weight=1.0) is None
