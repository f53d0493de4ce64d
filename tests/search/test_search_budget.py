"""Budgets in whole searches: met by what is found, refused where no network can meet them, reported if missed."""

import pytest
import torch

from timfuse.cost import BudgetReport, DeploymentTarget
from timfuse.cost.latency_table import latency_table_path, merge_latency_table
from timfuse.genotypes import load_genotype
from timfuse.operators import build_network, count_flops, count_parameters
from timfuse.runtime.errors import UserError
from timfuse.runtime.weights import load_into
from timfuse.search import search

CPU = torch.device("cpu")
SPACE = {"channels": 4, "cells": ["successive", "multi_scale"]}
FAST = {"steps": 3, "warmup": 1}


def amounts(genotype):
    network = build_network(genotype)
    return {"FLOPs": count_flops(network, 16, 16), "params": count_parameters(network)}


@pytest.fixture
def clock(monkeypatch):
    """Let a network take the milliseconds of its channels and, for each scale, of its operators; returns these."""
    times = {"residual_k3_d1": 5.0, "spatial_attention_k3": 1.0, "channel_attention_k3": 3.0, "channels": 2.0}

    counted = DeploymentTarget.cost

    def cost(target, kind, network):
        if kind != "ms":
            return counted(target, kind, network)
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
    monkeypatch.setattr(DeploymentTarget, "cost", cost)
    shapes = ("4x16x16", "8x8x8", "16x4x4")
    table = {f"{name} {shape} batch": times[name] for name in names.values() for shape in shapes}
    merge_latency_table(
        latency_table_path(CPU), {**table, "rest successive multi_scale 4 batch full direct 16x16": 8.0}, CPU
    )
    return times


def test_searches_under_budgets_of_operations_and_parameters_meet_them(tiny):
    space = {**SPACE, "cells": ["successive"], "steps": 2}
    free = search(tiny("free", space=space, search=FAST)).genotype
    for kind, amount in amounts(free).items():
        # Without a weight it is the same search, and the budget decides at its end.
        cost = {"budget": f"{amount - 1}{kind}", "budget_weight": 0.0}
        config = tiny(kind, space=space, search=FAST, cost=cost)
        genotype = search(config).genotype
        assert amounts(genotype)[kind] < amount
        report = BudgetReport.of(load_genotype(config.run))
        assert (report.asked, report.kind, report.met) == (cost["budget"], kind, True)
        assert report.predicted == report.measured == amounts(genotype)[kind]
        assert ", for the budget" in str(genotype.provenance["reason"])
        assert not (config.run / "latency.yaml").exists()


def test_a_search_under_a_budget_of_time_meets_it_on_the_device(tiny):
    # A network this small takes a few milliseconds anywhere; the smallest one is certain to be faster than 100.
    config = tiny(space=SPACE, search=FAST, cost={"budget": "100ms"})
    genotype = search(config).genotype
    report = BudgetReport.of(genotype)
    assert report.met
    assert report.measured < 100
    assert genotype.provenance["latency"]["milliseconds"] == round(report.measured, 2)
    assert (config.run / "latency.yaml").is_file()


def test_the_derived_network_is_chosen_again_where_it_takes_longer_than_predicted(tiny, clock):
    config = tiny(space=SPACE, search=FAST, cost={"budget": "22ms"})
    clock["residual_k3_d1"], clock["channel_attention_k3"] = 9.0, 9.0  # the table says 5 and 3
    genotype = search(config).genotype
    report = BudgetReport.of(genotype)
    assert report.met
    assert report.measured == 8 + 9 + 3 == 20  # one of them in the cell with one scale
    assert genotype.provenance["latency"]["milliseconds"] == 20
    assert genotype.cells[1].operators == ("spatial_attention_k3",)


def test_a_network_that_misses_its_budget_is_kept_and_reported(tiny, clock):
    config = tiny(space=SPACE, search=FAST, cost={"budget": "22ms"})
    # The machine becomes slower before the network is derived.
    genotype = search(config, on_validation=lambda step, losses: clock.update(channels=5.0)).genotype
    assert load_genotype(config.run) == genotype
    assert (config.run / "weights.safetensors").is_file()
    report = BudgetReport.of(genotype)
    assert not report.met
    words = r"takes 24 ms, 2 ms above cost\.budget = 22ms; space\.channels=2 would meet it \(14 ms\)$"
    with pytest.raises(UserError, match=words):
        report.check()


@pytest.mark.parametrize("budget", ["11.9ms", "1params"])
def test_a_budget_that_no_network_meets_is_refused_before_anything_is_written(tiny, clock, budget):
    config = tiny(space=SPACE, search=FAST, cost={"budget": budget})
    with pytest.raises(UserError, match=rf"^cost\.budget = {budget} cannot be met: the cheapest network"):
        search(config)
    assert not config.run.exists()


def test_a_run_that_has_begun_is_not_refused_when_it_goes_on(tiny, clock):
    config = tiny(space=SPACE, search=FAST, cost={"budget": "22ms"})
    search(config)
    clock.update(channels=1000.0)
    assert not search(config, resume=True).budget.met
    with pytest.raises(UserError, match="cannot be met"):
        search(config, overwrite=True)
    assert (config.run / "genotype.yaml").is_file()


def test_a_front_has_a_network_for_each_budget_and_is_the_same_search(tiny, capsys):
    space = {**SPACE, "cells": ["successive"], "steps": 2}
    free = search(tiny("free", space=space, search=FAST)).genotype
    amount = amounts(free)["params"]
    budgets = [f"{amount}params", f"{amount - 1} params"]
    config = tiny("front", space=space, search=FAST, cost={"front": ", ".join(budgets)})
    result = search(config)
    assert result.genotype.cells == free.cells
    assert result.budget is None
    assert list(result.front) == budgets[::-1]  # the least first
    assert result.front[budgets[0]].cells == free.cells
    errors = capsys.readouterr().err
    assert all(f"choosing the network of the front for {text}\n" in errors for text in budgets)
    for text, genotype in result.front.items():
        report = BudgetReport.of(genotype)
        assert (report.asked, report.met) == (text, True)
        assert report.measured == amounts(genotype)["params"] <= int(text.removesuffix("params"))
        folder = config.run / "front" / text.replace(" ", "")
        network = build_network(load_genotype(folder))
        load_into(network, folder)
    again = search(config, overwrite=True)
    assert [genotype.cells for genotype in again.front.values()] == [
        genotype.cells for genotype in result.front.values()
    ]


def test_a_front_that_cannot_be_reached_is_refused_by_its_least_budget(tiny):
    config = tiny(space=SPACE, search=FAST, cost={"front": "9kparams,1params"})
    with pytest.raises(UserError, match=r"^cost\.front = 1params cannot be met: the cheapest network"):
        search(config)
    assert not config.run.exists()
