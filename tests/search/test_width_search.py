"""A search of widths, blocks and the finest level: what it writes, that it resumes, and that budgets hold."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from timfuse.cost import BudgetReport, DeploymentTarget, parse_budget
from timfuse.cost.cost_model import count_costs
from timfuse.genotypes import load_genotype
from timfuse.operators import build_network, count_parameters, load_network_folder, receptive_field
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.history import read_history
from timfuse.runtime.seeds import derive_seed
from timfuse.search import search
from timfuse.search import verify as verify_networks
from timfuse.search.candidates import BAND, described, network_key, proposed, uniform_network
from timfuse.search.inherited_loss import inherited_loss
from timfuse.search.proposals import distribution, propose
from timfuse.search.relaxation import relax_all
from timfuse.search.search_config import CostSection, VerifySection
from timfuse.search.starting_point import even_logits

from ..equality import assert_same
from ..tiny_runs import tiny_search

SPACE = {
    "preset": "pyramid",
    "channels": [[0, 2, 4], [2, 4, 6]],
    "cells": ["stage", "stage"],
    "levels": [0, 1],
    "steps": 1,
    "operators": ["identity", "plain_k3", "inverted_k3"],
}
MOVING = {"architecture_learning_rate": 0.2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The config and genotype of one search of widths that has run to its end."""
    config = tiny_search(tmp_path_factory.mktemp("runs") / "widths", space=SPACE, search=MOVING)
    return config, search(config).genotype


def test_the_history_has_the_probabilities_of_each_width(finished):
    config, _ = finished
    rows = [row for row in read_history(config.run / "history.jsonl") if "probability" in row]
    for row in rows:
        assert list(row["probability"]) == ["cell 1 step 1", "cell 2 step 1", "level 0 width", "level 1 width"]
        assert list(row["probability"]["level 0 width"]) == ["0", "2", "4"]
        assert list(row["probability"]["level 1 width"]) == ["2", "4", "6"]
        assert all(sum(shares.values()) == pytest.approx(1, abs=1e-6) for shares in row["probability"].values())
    assert list(rows[0]["probability"]["level 0 width"].values()) == pytest.approx([1 / 3] * 3)
    assert max(rows[-1]["probability"]["level 1 width"].values()) > 0.35


def test_the_genotype_has_the_most_probable_widths_and_says_why(finished):
    config, genotype = finished
    widths = distribution(config.run, config.space.search_space).widths
    options, likely = config.space.search_space.width_options, widths.argmax(-1).tolist()
    assert genotype.channels == tuple(of_level[index] for of_level, index in zip(options, likely, strict=True))
    reasons = genotype.provenance["reason"]["widths"]
    assert len(reasons) == 2
    for reason, width, row in zip(reasons, genotype.channels, widths, strict=True):
        first, share, before, *_ = reason.split()
        assert (first, before) == (str(width), "before")
        assert float(share) == pytest.approx(row.max().item(), abs=0.006)
    assert load_genotype(config.run) == genotype
    _, network = load_network_folder(config.run)
    assert network.eval()(*torch.rand(2, 1, 1, 21, 34)).shape == (1, 1, 21, 34)
    assert genotype.provenance["parameters"] == count_parameters(network)


def test_the_probability_curves_have_a_panel_for_each_width(finished):
    svg = (finished[0].run / "pictures" / "probabilities.svg").read_text(encoding="utf-8")
    assert "level 0 width: " in svg
    assert "4 channels" in svg


@pytest.mark.parametrize("mixture", ["softmax", "gumbel"])
@pytest.mark.parametrize("estimator", ["first_order", "gauss_newton"])
def test_operators_and_widths_move_after_the_warm_up(tiny, make_steps, estimator, mixture):
    settings = {"steps": 4, "warmup": 1, "mixture": mixture, "estimator": estimator}
    rows, state = make_steps(tiny(space=SPACE, search=settings))
    for name, shape in (("logits", (2, 1, 3)), ("width_logits", (2, 3))):
        assert state[name].shape == shape
        assert state[name].abs().amin() > 0
    assert rows[0]["entropy"] == pytest.approx(1)
    assert rows[-1]["entropy"] < 1


@pytest.mark.parametrize("estimator", ["first_order", "gauss_newton", "finite_difference"])
def test_candidates_without_a_graph_change_nothing(tiny, make_steps, estimator, monkeypatch):
    section = {"estimator": estimator, "mixture": "gumbel", "steps": 6, "warmup": 1, **MOVING}
    rows, _ = make_steps(tiny("with", space=SPACE, search=section))
    monkeypatch.setattr("timfuse.search.search_step.FIRST_DERIVATIVES", ())
    others, _ = make_steps(tiny("without", space=SPACE, search=section))
    numbers, expected = (
        [[row[name] for row in of_run if name in row] for name in ("inner_loss", "outer_loss", "entropy")]
        for of_run in (rows, others)
    )
    assert all(expected)
    assert numbers == [pytest.approx(of_name, rel=1e-4) for of_name in expected]


def test_a_search_of_widths_that_is_resumed_is_the_same_to_the_bit(tiny, make_steps, finished):
    config, _ = finished
    stopped = tiny("widths", space=SPACE, search=MOVING)
    make_steps(stopped, at=5)
    assert not (stopped.run / "genotype.yaml").exists()
    search(stopped, resume=True)
    both = [load_checkpoint(run / "checkpoint.pt")["state"] for run in (config.run, stopped.run)]
    assert_same(*both)
    assert (config.run / "history.jsonl").read_bytes() == (stopped.run / "history.jsonl").read_bytes()
    assert (config.run / "weights.safetensors").read_bytes() == (stopped.run / "weights.safetensors").read_bytes()


def test_widths_and_blocks_are_chosen_within_a_budget(tiny, finished):
    most = count_parameters(build_network(finished[1]))
    config = tiny(space=SPACE, search=MOVING, cost={"budget": f"{most - 1}params", "budget_weight": 0.0})
    genotype = search(config).genotype
    report = BudgetReport.of(genotype)
    assert report.met
    assert report.predicted == report.measured == count_parameters(build_network(genotype)) < most
    assert ", for the budget" in str(genotype.provenance["reason"])


def test_a_budget_pulls_towards_itself_from_both_sides(tiny, make_steps):
    for budget in (1000, 2500):
        costs = []
        for name, weight in ((f"free-{budget}", 0.0), (f"charged-{budget}", 100.0)):
            cost = {"budget": f"{budget}params", "budget_weight": weight}
            costs.append(make_steps(tiny(name, space=SPACE, search=MOVING, cost=cost))[0][-1]["parameters"])
        assert abs(costs[1] - budget) < min(abs(costs[0] - budget), 0.1 * budget)


def test_proposed_networks_with_widths_are_trained(tiny):
    verify = {"candidates": 2, "rounds": 1, "steps": 1, "validation_pairs": 1}
    config = tiny(space=SPACE, search={"steps": 3, "warmup": 1}, data={"crop": 24, "batch_size": 1}, verify=verify)
    result = search(config)
    genotype = load_genotype(config.run)
    assert genotype == result.genotype
    best = result.verification.best
    assert (genotype.channels, genotype.cells) == (best.genotype.channels, best.genotype.cells)
    assert best.operators.startswith("-".join(map(str, genotype.channels)) + ": ")
    assert set(genotype.provenance["verification"]["searched"]) == {"channels", "operators"}


def test_sampled_weights_choose_what_is_proposed(tiny, monkeypatch):
    monkeypatch.setattr("timfuse.search.proposals.SCORED", 12)
    verify = {"candidates": 3, "rounds": 1, "steps": 1, "validation_pairs": 1}
    search_section = {"steps": 4, "warmup": 1, "mixture": "gumbel"}
    config = tiny(space=SPACE, search=search_section, data={"crop": 24, "batch_size": 1}, verify=verify)
    result = search(config)
    space, loss = config.space.search_space, inherited_loss(config.run)
    model = count_costs("FLOPs", space, DeploymentTarget(16, 16, torch.device("cpu")))
    seed = derive_seed(config.seed, "verification", 0)
    searched = space.choices(result.genotype.provenance["verification"]["searched"])
    cost = model.predict(searched)
    bounds = (1 - BAND) * cost, (1 + BAND) * cost
    # Half of the networks are drawn from the probabilities with which the search ended, half uniformly.
    drawn = proposed(distribution(config.run, space), [searched], space, model, bounds, 6, seed)
    drawn = proposed(relax_all(even_logits(space), 1.0), drawn, space, model, bounds, len(drawn) + 6, seed)
    best = sorted(drawn[1:], key=loss)[:2]
    ours = [each for each in result.verification.candidates if each.origin == "proposed"]
    expected = {network_key(space, network) for network in [searched, *best]}
    assert {network_key(space, space.choices(described(each.genotype))) for each in ours} == expected


def test_what_is_proposed_uses_up_the_budget(tiny, monkeypatch):
    monkeypatch.setattr("timfuse.search.proposals.SCORED", 12)
    config = tiny(space=SPACE | {"steps": 2}, search={"steps": 3, "warmup": 1}, verify={"candidates": 0})
    space = config.space.search_space
    model = count_costs("FLOPs", space, DeploymentTarget(16, 16, torch.device("cpu")))
    generator = random.Random(0)
    budget = sorted(model.predict(uniform_network(space, generator)) for _ in range(99))[60]
    verify = {"candidates": 3, "rounds": 1, "steps": 1, "validation_pairs": 1}
    config = config.model_copy(update={"cost": CostSection(budget=f"{budget}FLOPs", height=16, width=16)})
    search(config)
    unlimited = config.data.model_copy(update={"crop": 1000})
    candidates = propose(config.model_copy(update={"verify": VerifySection(**verify), "data": unlimited}))
    costs = {each.name: each.gflops * 1e9 for each in candidates}
    assert costs.pop("proposed-0") <= budget  # what the search chose, which may be far below
    assert len([name for name in costs if not name.startswith("plain")]) == 5
    assert max(costs.values()) <= budget
    assert "plain-0" in costs
    assert all((1 - BAND) * budget <= cost for name, cost in costs.items() if name.startswith("proposed"))


def test_candidates_of_a_budget_of_time_cost_the_same_time_as_measured(tiny, monkeypatch):
    monkeypatch.setattr("timfuse.search.proposals.SCORED", 12)

    def measure_costs(space, target, *, table=None):
        return replace(count_costs("params", space, target), kind="ms"), {}, []

    counted = DeploymentTarget.cost

    def cost(target, kind, network):  # all networks take 1.2 times as long as is predicted
        return 1.2 * count_parameters(network) if kind == "ms" else counted(target, kind, network)

    monkeypatch.setattr("timfuse.cost.cost_penalty.measure_costs", measure_costs)
    monkeypatch.setattr(DeploymentTarget, "cost", cost)
    verify = {"candidates": 3, "rounds": 1, "steps": 1, "validation_pairs": 1}
    config = tiny(
        space=SPACE | {"steps": 2},
        search={"steps": 3, "warmup": 1},
        data={"crop": 200, "batch_size": 1},
        cost={"budget": "1900ms"},
        verify=verify,
    )
    result = search(config)
    for each in result.verification.candidates:
        measured = 1.2 * count_parameters(build_network(each.genotype))
        assert measured == pytest.approx(1.2 * each.milliseconds)
        if each.name != "proposed-0":
            assert (1 - BAND) ** 2 * 1900 <= measured <= 1900
    names = Counter(each.origin for each in result.verification.candidates)
    assert names == {"proposed": 3, "plain": 1, "random": 3}
    report = BudgetReport.of(load_genotype(config.run))
    assert report.met
    assert report.measured == pytest.approx(1.2 * report.predicted)
    with (config.run / "verification.csv").open(encoding="utf-8") as file:
        assert file.readline().startswith("network,operators,GFLOPs,predicted ms,")
    again = verify_networks(config)  # of the result, which has another report than what the search chose
    assert again.candidates == result.verification.candidates


def test_networks_of_a_front_use_up_their_budgets_and_do_best_with_shared_weights(tiny, monkeypatch):
    monkeypatch.setattr("timfuse.search.search_conclusion.SCORED", 12)
    budgets = ("500params", "900params")
    config = tiny(
        space=SPACE | {"steps": 2},
        search={"steps": 4, "warmup": 1, "mixture": "gumbel"},
        data={"crop": 200, "batch_size": 1},
        cost={"front": ",".join(budgets)},
        verify={"candidates": 0},
    )
    front = search(config).front
    space, loss = config.space.search_space, inherited_loss(config.run)
    model = count_costs("params", space, DeploymentTarget(16, 16, torch.device("cpu")))
    even, seed = relax_all(even_logits(space), 1.0), derive_seed(config.seed, "front", 0)
    for text in budgets:
        amount = parse_budget(text).amount
        report = BudgetReport.of(front[text])
        assert (1 - BAND) * amount <= report.measured <= amount
        bounds = (1 - BAND) * amount, amount
        best = min(proposed(even, [], space, model, bounds, 12, seed), key=loss)
        assert network_key(space, best) == network_key(space, space.choices(described(front[text])))


def test_what_is_proposed_sees_no_farther_than_the_crops(tiny, monkeypatch):
    monkeypatch.setattr("timfuse.search.proposals.SCORED", 12)
    operators = ["identity", "plain_k3", "residual_k3_d1"]
    config = tiny(space=SPACE | {"steps": 2, "operators": operators}, search={"steps": 3, "warmup": 1})
    search(config)
    space, generator = config.space.search_space, random.Random(0)
    radii = [receptive_field(space.genotype(uniform_network(space, generator))) for _ in range(99)]
    crop = sorted(radii)[50]
    assert max(radii) > crop
    changes = {"verify": VerifySection(candidates=3), "data": config.data.model_copy(update={"crop": crop})}
    candidates = propose(config.model_copy(update=changes))
    assert len([each for each in candidates if each.origin != "plain"]) == 6
    assert all(receptive_field(each.genotype) <= crop for each in candidates if each.name != "proposed-0")


def test_a_found_network_that_sees_beyond_the_crops_is_told(tiny, capsys):
    config = tiny(space=SPACE, verify={"candidates": 0})
    genotype = search(config).genotype
    assert receptive_field(genotype) > config.data.crop
    assert capsys.readouterr().err.count(f"warning: {genotype.name} sees") == 1


def test_the_inherited_loss_of_what_was_found_is_that_of_its_provenance(tiny):
    config = tiny(space=SPACE, search={"steps": 4, "warmup": 1, "mixture": "gumbel"})
    genotype = search(config).genotype
    choices = config.space.search_space.choices(described(genotype))
    derived = genotype.provenance["metrics"]["derived"]["mean"]["outer_loss"]
    assert inherited_loss(config.run)(choices) == pytest.approx(derived, rel=1e-6)
