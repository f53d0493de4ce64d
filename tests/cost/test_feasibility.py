"""Budgets in whole searches: met by what is found, refused where no network can, told where none does."""

import pytest
import torch

from timfuse.cost.budget import format_cost
from timfuse.cost.latency_table import merge_table, table_path
from timfuse.genotypes import load_genotype
from timfuse.operators import build_network, count_flops, count_parameters
from timfuse.runtime.errors import UserError
from timfuse.search import Spending, search

CPU = torch.device("cpu")
SPACE = {"channels": 4, "cells": ["successive", "multi_scale"]}
FAST = {"steps": 3, "warmup": 1}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("timfuse.search.search_conclusion.draw", lambda *arguments: None)
    monkeypatch.setattr("timfuse.search.search_conclusion.draw_probabilities", lambda *arguments: None)


def amounts(genotype):
    network = build_network(genotype)
    return {"FLOPs": count_flops(network, 16, 16), "params": count_parameters(network)}


@pytest.fixture
def clock(monkeypatch):
    """Let a network take as long as the milliseconds by operator (per scale) and by channels say; returns both."""
    times = {"residual_k3_d1": 5.0, "spatial_attention_k3": 1.0, "channel_attention_k3": 3.0, "channels": 2.0}

    def fake(network, *arguments):
        total = times["channels"] * network.stem[2].out_channels
        for cell in network.cells:
            for chain in (child for name, child in cell.named_children() if name.startswith("operators")):
                total += sum(times[names[type(operator).__name__]] for operator in chain)
        return total

    names = {
        "Residual": "residual_k3_d1",
        "SpatialAttention": "spatial_attention_k3",
        "ChannelAttention": "channel_attention_k3",
    }
    monkeypatch.setattr("timfuse.cost.feasibility.measure_network", fake)
    monkeypatch.setattr("timfuse.search.search_conclusion.measure_network", fake)
    shapes = ("4x16x16", "8x8x8", "16x4x4")
    table = {f"{name} {shape} batch": times[name] for name in names.values() for shape in shapes}
    merge_table(table_path(CPU), {**table, "rest successive multi_scale 4 batch full direct 16x16": 8.0}, CPU)
    return times


def test_searches_under_budgets_of_operations_and_parameters_meet_them(tiny):
    space = {**SPACE, "cells": ["successive"], "steps": 2}
    free = search(tiny("free", space=space, search=FAST))
    for kind, amount in amounts(free).items():
        # Without a weight it is the same search, and the budget decides at its end.
        cost = {"budget": f"{amount - 1}{kind}", "budget_weight": 0.0}
        config = tiny(kind, space=space, search=FAST, cost=cost)
        genotype = search(config)
        assert amounts(genotype)[kind] < amount
        spending = Spending.of(load_genotype(config.run))
        assert (spending.asked, spending.kind, spending.met) == (cost["budget"], kind, True)
        assert spending.predicted == spending.measured == amounts(genotype)[kind]
        assert ", for the budget" in str(genotype.provenance["reason"])
        assert not (config.run / "latency.yaml").exists()


def test_a_search_under_a_budget_of_time_meets_it_on_the_device(tiny):
    # A network this small takes a few milliseconds anywhere; the smallest one is certain to be faster than 100.
    config = tiny(space=SPACE, search=FAST, cost={"budget": "100ms"})
    genotype = search(config)
    spending = Spending.of(genotype)
    assert spending.met
    assert spending.measured < 100
    assert genotype.provenance["latency"]["milliseconds"] == round(spending.measured, 2)
    assert (config.run / "latency.yaml").is_file()


def test_the_derived_network_is_chosen_again_where_it_takes_longer_than_predicted(tiny, clock):
    config = tiny(space=SPACE, search=FAST, cost={"budget": "22ms"})
    clock["residual_k3_d1"], clock["channel_attention_k3"] = 9.0, 9.0  # the table says 5 and 3
    genotype = search(config)
    spending = Spending.of(genotype)
    assert spending.met
    assert spending.measured == 8 + 9 + 3 == 20  # one of them in the cell with one scale
    assert genotype.provenance["latency"]["milliseconds"] == 20
    assert genotype.cells[1].operators == ("spatial_attention_k3",)


def test_a_network_that_misses_its_budget_is_kept_and_told(tiny, clock, monkeypatch):
    config = tiny(space=SPACE, search=FAST, cost={"budget": "22ms"})
    conclude = "timfuse.search.search_conclusion.measure_network"
    monkeypatch.setattr(conclude, lambda *arguments: 24.0)  # the machine has become slower meanwhile
    genotype = search(config)
    assert load_genotype(config.run) == genotype
    assert (config.run / "weights.safetensors").is_file()
    spending = Spending.of(genotype)
    assert not spending.met
    with pytest.raises(
        UserError, match=r"takes 24 ms, 2 ms above cost\.budget = 22ms; space\.stem=half would \(12 ms\)$"
    ):
        spending.check()


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (
            "11.9ms",
            "the fastest network of this space takes 12 ms for 16x16 on this device; space.channels=2 would (8 ms)",
        ),
        ("7.9 ms", "space.stem=half space.channels=2 would"),
        ("1ms", "the least that a smaller space reaches is 5 ms, with space.channels=2 space.cells=[successive]"),
    ],
)
def test_a_time_that_no_network_keeps_is_refused_before_anything_is_written(tiny, clock, monkeypatch, budget, words):
    if budget == "7.9 ms":
        fake = {("full", 2): 8.0, ("half", 2): 7.0}
        monkeypatch.setattr(
            "timfuse.cost.feasibility.measure_network",
            lambda network, *_: fake.get(
                ("half" if network.shrink == 2 else "full", network.stem[2].out_channels), 12.0
            ),
        )
    config = tiny(space=SPACE, search=FAST, cost={"budget": budget})
    with pytest.raises(UserError) as caught:
        search(config)
    assert str(caught.value).startswith(f"cost.budget = {budget} cannot be met: the fastest network")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.run.exists()


def test_counts_that_no_network_keeps_are_refused_with_what_would_do(tiny):
    with pytest.raises(UserError) as caught:
        search(tiny(space=SPACE, search=FAST, cost={"budget": "1params"}))
    line = str(caught.value)
    assert line.startswith("cost.budget = 1params cannot be met: the smallest network of this space has ")
    assert "; the least that a smaller space reaches is " in line
    assert line.endswith(" params, with space.channels=2 space.cells=[successive]")
    space = {"channels": 8, "stem": "half", "operators": ["spatial_attention_k3", "residual_k3_d1"]}
    smaller = tiny(space={**space, "channels": 4}).space
    least = amounts(smaller.genotype("least", "infrared-visible", [["spatial_attention_k3"]]))["FLOPs"]
    for budget, words in (
        (least, f"space.channels=4 would ({format_cost('FLOPs', least)})"),
        (least - 1, "=2 would ("),
    ):
        with pytest.raises(UserError, match=r"the smallest network of this space needs .* for 16x16; ") as caught:
            search(tiny(space=space, cost={"budget": f"{budget}FLOPs"}))
        assert words in str(caught.value)


def test_a_run_that_has_begun_is_not_refused_when_it_goes_on(tiny, clock, monkeypatch):
    config = tiny(space=SPACE, search=FAST, cost={"budget": "22ms"})
    search(config)
    monkeypatch.setattr("timfuse.cost.feasibility.measure_network", lambda *arguments: 1000.0)
    assert Spending.of(search(config, resume=True)).met
    with pytest.raises(UserError, match="cannot be met"):
        search(config, overwrite=True)
    assert (config.run / "genotype.yaml").is_file()
