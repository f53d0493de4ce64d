from dataclasses import dataclass, replace

import pytest
import torch

from timfuse.cost import (
    Choices,
    CostModel,
    DeploymentTarget,
    SearchSpace,
    check_feasible,
    parse_budget,
    suggest_setting,
)
from timfuse.cost.budget import format_cost
from timfuse.cost.cost_model import count_costs
from timfuse.operators import build_network
from timfuse.runtime.errors import UserError

CPU = torch.device("cpu")
# Of the candidates of `SPACE`, the second is the fastest in both cells.
SPACE = SearchSpace(
    4, ("successive", "multi_scale"), 1, ("residual_k3_d1", "spatial_attention_k3", "channel_attention_k3")
)
MODEL = CostModel("ms", 8.0, torch.tensor([[5.0, 1.0, 3.0], [15.0, 3.0, 9.0]], dtype=torch.float64))


@dataclass(frozen=True)
class ToyTarget(DeploymentTarget):
    """A network takes 2 ms for each channel and 1 ms for each scale of each operator; a half stem takes off a share."""

    half: float = 1.0

    def cost(self, kind, network):
        assert kind == "ms"
        chains = [child for cell in network.cells for name, child in cell.named_children() if "operators" in name]
        assert all(type(operator).__name__ == "SpatialAttention" for chain in chains for operator in chain)
        time = 2.0 * network.stem[2].out_channels + sum(map(len, chains))
        return self.half * time if network.shrink == 2 else time


@pytest.mark.parametrize("budget", ["12ms", "1s"])
def test_a_time_that_the_fastest_network_keeps_is_feasible(budget):
    check_feasible(SPACE, parse_budget(budget), MODEL, ToyTarget(16, 24, CPU))


@pytest.mark.parametrize(
    ("budget", "half", "words"),
    [
        ("11.9ms", 1.0, "space.channels=2 would meet it (8 ms)"),
        ("11.9ms", 0.75, "space.stem=half would meet it (9 ms)"),
        ("7.9 ms", 0.9, "space.stem=half space.channels=2 would meet it (7.2 ms)"),
        ("1ms", 1.0, "even space.channels=2 space.cells=[successive] costs 5 ms"),
    ],
)
def test_a_time_that_no_network_keeps_is_refused_with_what_would_do(budget, half, words):
    with pytest.raises(UserError) as caught:
        check_feasible(SPACE, parse_budget(budget), MODEL, ToyTarget(16, 24, CPU, half))
    assert str(caught.value) == (
        f"cost.budget = {budget} cannot be met: "
        f"the cheapest network of this space costs 12 ms for images of 24x16; {words}"
    )


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("2kparams", "space.channels=[2,2] would meet it (905 params)"),
        (
            "200params",
            "even space.channels=[2,2] space.levels=[1] space.cells=[successive] space.steps=1 costs 784 params",
        ),
    ],
)
def test_a_smaller_pyramid_is_proposed(budget, words):
    cells, names = ("successive", "successive"), ("residual_k3_d1", "plain_k3")
    space = SearchSpace((8, 12), cells, 2, names, "none", "half", "bands", levels=(0, 1))
    target = DeploymentTarget(16, 16, CPU)
    with pytest.raises(UserError) as caught:
        check_feasible(space, parse_budget(budget), count_costs("params", space, target), target)
    assert words in str(caught.value)


def test_both_branches_of_a_refine_network_become_shorter():
    cells, sources = ("successive", "multi_scale", "successive"), ("first", "first", "second")
    space = SearchSpace(8, cells, 2, ("residual_k3_d1", "dense_k3_d1"), sources=sources, merge="gated")
    target = DeploymentTarget(16, 16, CPU)
    model = count_costs("params", space, target)
    smaller = {
        "space.channels=4": replace(space, channels=4),
        "space.channels=2": replace(space, channels=2),
        "space.channels=2 space.cells=[successive,successive] space.sources=[first,second] space.steps=1": replace(
            space, channels=2, cells=("successive",) * 2, sources=("first", "second"), steps=1
        ),
    }
    for words, each in smaller.items():
        choices = Choices([[0] * each.steps] * len(each.cells))
        cost = target.cost("params", build_network(each.genotype(choices)))
        assert suggest_setting(space, parse_budget(f"{cost}params"), model, target) == (
            f"{words} would meet it ({format_cost('params', cost)})"
        )
    words = f"even {words} costs {format_cost('params', cost)}"
    assert suggest_setting(space, parse_budget("1params"), model, target) == words


WIDTHS = SearchSpace(
    ((0, 8, 16), (8, 12, 16)), ("stage", "stage"), 2, ("plain_k3", "identity"), "none", "half", "bands", levels=(0, 1)
)


def test_where_widths_are_searched_all_are_halved():
    target = DeploymentTarget(16, 16, CPU)
    model = count_costs("params", WIDTHS, target)
    least, half = (
        target.cost("params", build_network(replace(WIDTHS, channels=channels).genotype(Choices([[1, 1]] * 2, (0, 0)))))
        for channels in (WIDTHS.channels, ((0, 4, 8), (4, 6, 8)))
    )
    check_feasible(WIDTHS, parse_budget(f"{least}params"), model, target)
    with pytest.raises(UserError) as caught:
        check_feasible(WIDTHS, parse_budget(f"{least - 1}params"), model, target)
    words = f"space.channels=[[0,4,8],[4,6,8]] would meet it ({half} params)"
    assert str(caught.value).endswith(words)
    # 8 and 12 halved twice would both be 2.
    assert suggest_setting(WIDTHS, parse_budget("1params"), model, target) == (
        f"even space.channels=[[0,4,8],[4,6,8]] costs {half} params"
    )


def test_counts_that_no_network_keeps_are_refused_with_what_would_do():
    space = SearchSpace(8, ("successive",), 1, ("spatial_attention_k3", "residual_k3_d1"), stem="half")
    target = DeploymentTarget(16, 16, CPU)
    model = count_costs("FLOPs", space, target)
    smaller = replace(space, channels=4).genotype(Choices([[0]]))
    least = target.cost("FLOPs", build_network(smaller))
    assert suggest_setting(space, parse_budget(f"{least}FLOPs"), model, target) == (
        f"space.channels=4 would meet it ({format_cost('FLOPs', least)})"
    )
    with pytest.raises(UserError, match=r"; space\.channels=2 would meet it \("):
        check_feasible(space, parse_budget(f"{least - 1}FLOPs"), model, target)
    least = target.cost("FLOPs", build_network(space.genotype(Choices([[0]]))))
    check_feasible(space, parse_budget(f"{least}FLOPs"), model, target)


def test_the_least_count_of_all_smaller_spaces():
    target = DeploymentTarget(16, 16, CPU)
    model = count_costs("params", SPACE, target)
    smallest = build_network(SearchSpace(2, ("successive",), 1, ("spatial_attention_k3",)).genotype(Choices([[0]])))
    assert suggest_setting(SPACE, parse_budget("1params"), model, target) == (
        f"even space.channels=2 space.cells=[successive] costs {target.cost('params', smallest)} params"
    )
    space = SearchSpace(2, ("successive",), 1, SPACE.operators, stem="half")
    assert suggest_setting(space, parse_budget("1params"), model, target) == "there is no smaller space"
