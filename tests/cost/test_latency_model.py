import pytest
import torch

from timfuse.cost import Choices, DeploymentTarget, SearchSpace, load_latency_table
from timfuse.cost.latency_model import CHAINED, measure_costs
from timfuse.cost.latency_table import latency_table_path
from timfuse.operators import build_network, load_operators

CPU = torch.device("cpu")
OPERATORS = ("residual_k3_d1", "spatial_attention_k3", "identity")


def space(cells=("successive", "multi_scale"), **settings):
    return SearchSpace(**{"cells": cells, "operators": OPERATORS, "channels": 4, "steps": 2, **settings})


def test_a_real_measurement():
    target = DeploymentTarget(16, 16, CPU)
    model, _, times = measure_costs(space(cells=("successive",)), target, networks=[build_network(space().bare())])
    assert 0 <= model.candidates[0, 2] < model.candidates[0, 0] < model.rest
    assert times[0] > 0


@pytest.mark.parametrize("stem", ["full", "half"])
def test_a_network_costs_its_rest_and_its_operators_at_their_shapes(counting, stem):
    cells, target = ("successive", "multi_scale", "decomposition"), counting(33, 26)
    model, table, _ = measure_costs(space(cells, stem=stem), target)  # padded to 36x28, or to 40x32 and then halved
    full, half, quarter = ("4x36x28", "8x18x14", "16x9x7") if stem == "full" else ("4x20x16", "8x10x8", "16x5x4")

    def at(name, *shapes):
        return sum(table[f"{name} {shape} batch"] for shape in shapes)

    expected = [
        [at(name, full) for name in OPERATORS],
        [at(name, full, half, quarter) for name in OPERATORS],
        [at(name, full, full) for name in OPERATORS],
    ]
    assert model.candidates.tolist() == expected
    assert model.rest == table[f"rest successive multi_scale decomposition 4 batch {stem} direct 26x33"]
    assert len(target.measured) == len(table) == 3 * 3 + 1
    assert model.predict(Choices([[0, 1], [2, 2], [1, 0]])) == pytest.approx(
        model.rest + expected[0][0] + expected[0][1] + 2 * expected[1][2] + expected[2][1] + expected[2][0]
    )


def test_a_refine_network_is_measured_with_the_image_that_it_refines(counting):
    target, sources = counting(32, 24), ("first", "second")
    refine = space(("successive", "multi_scale"), sources=sources, merge="gated")
    model, table, times = measure_costs(refine, target, networks=[build_network(refine.bare())])

    def at(*shapes):
        return [sum(table[f"{name} {shape} batch"] for shape in shapes) for name in OPERATORS]

    assert model.rest == table["rest successive@first multi_scale@second 4 batch full gated 24x32"]
    assert model.candidates.tolist() == [at("4x32x24"), at("4x32x24", "8x16x12", "16x8x6")]
    assert len(target.measured) == len(table) + 1 == 3 * 3 + 2
    assert times == [float(len(target.measured))]


def test_operators_are_measured_in_a_chain_and_on_what_reaches_them(counting):
    seen, target = [], counting(16, 16)
    _, table, _ = measure_costs(space(("successive",)), target)
    for forward in target.measured[1:]:
        operator, x = forward.args
        assert x.shape == (1, 4, 16, 16)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert x.std() > 0
        operator.register_forward_hook(lambda *arguments: seen.append(arguments))
        forward()
    assert len(seen) == CHAINED * 3
    assert table["residual_k3_d1 4x16x16 batch"] == 2.0 / CHAINED


def test_only_what_the_cache_lacks_is_measured(counting):
    target = counting(32, 24)
    _, table, _ = measure_costs(space(), target)
    assert len(target.measured) == 3 * 3 + 1  # operators at three shapes, and the rest of the network
    _, again, _ = measure_costs(space(), target)
    assert len(target.measured) == 10
    assert again == table == load_latency_table(latency_table_path(CPU), CPU)
    measure_costs(space(norm="group"), target)
    assert len(target.measured) == 20
    _, larger, times = measure_costs(space(stem="half"), target, networks=[build_network(space().bare())] * 2)
    assert len(target.measured) == 32  # 16x12, 8x6 and 4x3 at 4, 8 and 16 channels, the rest, and two networks
    assert times == [31.0, 32.0]
    assert all(larger[key] == value for key, value in table.items())
    _, anew, _ = measure_costs(space(), target, table={})
    assert len(target.measured) == 42
    assert anew.keys() == table.keys()
    assert load_latency_table(latency_table_path(CPU), CPU) == {**larger, **anew}


def test_the_same_table_gives_the_same_costs(counting):
    target = counting(32, 24)
    model, table, _ = measure_costs(space(), target)
    resumed, _, _ = measure_costs(space(), target, table=table)
    assert torch.equal(resumed.candidates, model.candidates)
    assert resumed.rest == model.rest
    assert len(target.measured) == 10


def widths_space(*channels, **settings):
    levels = tuple(range(len(channels)))
    names = ("plain_k3", "identity")
    shared = {"cells": ("stage",) * len(channels), "levels": levels, "norm": "none", "stem": "half", "head": "bands"}
    return space(channels=channels, **{"operators": names, **shared, **settings})


def test_where_widths_are_searched_their_combinations_and_operators_at_each_width_are_measured(counting):
    target = counting(32, 24)
    searched = widths_space((0, 2, 4), (2, 4, 6))
    model, table, _ = measure_costs(searched, target)

    def rest(*widths):
        cells = "stage@0 stage@1" if widths[0] else "stage@1"
        return table[f"rest {cells} {widths[0]}-{widths[1]} none half bands 24x32"]

    def at(shape):
        return [table[f"{name} {shape} none block"] for name in searched.operators]

    assert model.rest.tolist() == [[rest(fine, coarse) for coarse in (2, 4, 6)] for fine in (0, 2, 4)]
    assert model.candidates.tolist() == [
        [[0, 0], at("2x16x12"), at("4x16x12")],
        [at("2x8x6"), at("4x8x6"), at("6x8x6")],
    ]
    assert model.levels == (0, 1)
    assert len(target.measured) == len(table) == 9 + 2 * 5
    assert model.predict(Choices([[0, 0], [0, 1]], (0, 2))) == pytest.approx(rest(0, 6) + sum(at("6x8x6")))
    assert model.predict(Choices([[0, 0], [0, 1]], (2, 0))) == pytest.approx(
        rest(4, 2) + 2 * at("4x16x12")[0] + sum(at("2x8x6"))
    )
    again, table_again, _ = measure_costs(searched, target)
    assert len(target.measured) == 19
    assert table_again == table
    assert torch.equal(again.rest, model.rest)
    assert torch.equal(again.candidates, model.candidates)
    # A wider level needs its own operators, and combinations with it.
    measure_costs(widths_space((0, 2, 4), (2, 4, 8)), target)
    assert len(target.measured) == 19 + 3 + 2


def test_of_many_levels_two_neighbours_are_measured_at_a_time(counting):
    target = counting(16, 16)
    model, table, _ = measure_costs(widths_space((2, 4), (2, 4), (2, 6)), target)

    def rest(*widths):
        return table[f"rest stage@0 stage@1 stage@2 {'-'.join(map(str, widths))} none half bands 16x16"]

    assert model.rest.shape == (2, 2, 2)
    assert len([key for key in table if key.startswith("rest")]) == 6  # of 8 combinations
    assert model.rest[0, 0, 0].item() == pytest.approx(rest(2, 2, 6) + rest(4, 2, 2) - rest(4, 2, 6))
    assert model.rest[1, 1, 1].item() == pytest.approx(rest(4, 4, 6))


def test_an_operator_of_ones_own_is_measured_but_not_kept_for_others(counting, tmp_path, registrations):
    file = tmp_path / "mine.py"
    file.write_text(
        "from timfuse.operators import register_operator\n"
        "from torch import nn\n\n"
        "@register_operator('halved')\n"
        "class Halved(nn.Module):\n"
        "    def __init__(self, channels, norm):\n"
        "        super().__init__()\n"
        "    def forward(self, x):\n"
        "        return x / 2\n",
        encoding="utf-8",
    )
    load_operators(file)
    target = counting(32, 24)
    for _ in range(2):
        model, table, _ = measure_costs(space(("successive",), operators=("halved", "identity")), target)
        assert model.candidates[0, 0] == table["halved 4x32x24 batch"] > 0
    assert len(target.measured) == 4
    assert set(load_latency_table(latency_table_path(CPU), CPU)) == {
        "identity 4x32x24 batch",
        "rest successive 4 batch full direct 24x32",
    }
