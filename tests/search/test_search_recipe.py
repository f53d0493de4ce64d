"""A search: what it writes, that its steps are those of the formulas, and that costs and seeds have their part."""

import json
import math
from pathlib import Path

import pytest
import safetensors
import torch
from PIL import Image

import timfuse
from timfuse.bilevel import ESTIMATORS
from timfuse.cost import DeploymentTarget, load_latency_table, open_cost_penalty, save_latency_table
from timfuse.cost.latency_table import latency_table_path, merge_latency_table
from timfuse.data import PairBatch, write_pixels
from timfuse.genotypes import OPERATOR_KINDS, TASKS, CellGenotype, Genotype, load_genotype
from timfuse.objectives import FusionLoss
from timfuse.operators import build_network, count_parameters, load_network_folder
from timfuse.runtime.config import config_hash, load_config
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.search import SearchConfig, search
from timfuse.search.search_conclusion import RECALIBRATION_BATCHES, validation_losses
from timfuse.search.search_setup import SearchParts, open_batches, set_up
from timfuse.search.search_step import search_step
from timfuse.search.search_validation import recalibrate

from ..tiny_runs import tiny_search

FAST = {"steps": 3, "warmup": 1}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The config, genotype and folder of one search that has run to its end."""
    config = tiny_search(
        tmp_path_factory.mktemp("runs") / "found",
        seed=7,
        data={"synthetic_pairs": 8},
        space={
            "channels": 4,
            "cells": ["successive", "multi_scale"],
            "steps": 2,
            "operators": ["residual_k3_d1", "dense_k3_d1"],
        },
        search={"steps": 25, "warmup": 5, "validate_every": 10, "architecture_learning_rate": 0.2},
        cost={"height": 24, "width": 40},
    )
    return config, search(config).genotype, config.run


def losses_of(config):
    return [FusionLoss(**section.model_dump()) for section in (config.search.outer_loss, config.search.inner_loss)]


def test_run_folder_holds_what_the_readme_says_and_no_leftovers(finished):
    _, _, run = finished
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert names == {
        ".lock",
        ".written",
        "checkpoint.pt",
        "config.yaml",
        "genotype.yaml",
        "history.jsonl",
        "pictures",
        "report.html",
        "weights.safetensors",
    }
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    stems = ("network", "cell_1", "cell_2")
    drawn = {f"{stem}.{form}" for stem in stems for form in ("dot", "svg", "png")}
    pictures = {path.name for path in (run / "pictures").iterdir()}
    assert pictures == drawn | {"probabilities.svg", "probabilities.png"}
    for path in (run / "pictures").glob("*.png"):
        with Image.open(path) as image:
            image.verify()


def test_saved_genotype_and_config_are_those_of_the_search(finished):
    config, genotype, run = finished
    assert load_genotype(run) == genotype
    assert load_config(SearchConfig, run / "config.yaml") == config
    assert [cell.kind for cell in genotype.cells] == ["successive", "multi_scale"]
    assert all(len(cell.operators) == config.space.steps for cell in genotype.cells)
    assert {name for cell in genotype.cells for name in cell.operators} <= set(config.space.operators)
    assert (genotype.name, genotype.channels, genotype.norm, genotype.stem) == ("found", 4, "batch", "full")


def test_weights_measure_what_the_provenance_says(finished):
    config, genotype, run = finished
    _, network = load_network_folder(run)
    with safetensors.safe_open(run / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"genotype": "found"}
    batches, _ = open_batches(config, CPU, ALONE)
    losses = validation_losses(SearchParts(batches, *losses_of(config), None, ALONE), network.eval())
    assert losses == pytest.approx(genotype.provenance["metrics"]["derived"]["mean"], rel=1e-5)
    counts = batches.pairs.described
    assert genotype.provenance["data"] == {"root": "synthetic pairs", **counts}
    assert sum(counts.values()) == 8


def test_running_statistics_are_those_of_the_derived_network_on_training_batches(finished):
    """The steps of the search leave them alone, and those of the mixtures would be of other inputs."""
    config, _, run = finished
    _, network = load_network_folder(run)
    found = {name: buffer.clone() for name, buffer in network.named_buffers() if "running" in name}
    assert found
    for name, buffer in found.items():
        fresh = torch.zeros_like(buffer) if name.endswith("mean") else torch.ones_like(buffer)
        assert not torch.allclose(buffer, fresh)
        network.get_buffer(name).copy_(fresh)
    recalibrate(network, open_batches(config, CPU, ALONE)[0].weight(0, RECALIBRATION_BATCHES))
    for name, buffer in found.items():
        torch.testing.assert_close(network.get_buffer(name), buffer)


def test_provenance_says_how_and_why(finished):
    config, genotype, run = finished
    provenance = genotype.provenance
    assert (provenance["timfuse"], provenance["stage"]) == (timfuse.__version__, "search")
    assert provenance["config_hash"] == config_hash(config)
    assert [provenance[key] for key in ("seed", "estimator", "steps")] == [7, "gauss_newton", 25]
    assert provenance["parameters"] == count_parameters(build_network(genotype))
    assert provenance["flops_640x480"] > 0
    assert {"height": 24, "width": 40}.items() <= provenance["latency"].items()
    assert provenance["latency"]["milliseconds"] > 0
    last = read_history(run / "history.jsonl")[-1]["probability"]
    for cell, genotypes_cell in enumerate(genotype.cells, 1):
        for step, (operator, reason) in enumerate(
            zip(genotypes_cell.operators, provenance["reason"][f"cell {cell}"], strict=True), 1
        ):
            shares = last[f"cell {cell} step {step}"]
            other = next(name for name in shares if name != operator)
            assert shares[operator] >= shares[other]
            assert reason == f"{operator} {shares[operator]:.2f} before {other} {shares[other]:.2f}"


def test_history_has_every_step_with_its_diagnostics(finished):
    _, _, run = finished
    rows = read_history(run / "history.jsonl")
    assert [row["step"] for row in rows] == list(range(25))
    always = {"temperature", "weight_learning_rate", "inner_loss", "weight_gradient_norm", "entropy"}
    diagnostics = {"outer_loss", "coefficient", "cosine", "ratio", "fallback"}
    for row in rows:
        assert always <= row.keys()
        assert (diagnostics <= row.keys()) == (row["step"] >= 5)
        assert ("probability" in row) == (row["step"] % 10 == 0 or row["step"] == 24)
        assert ("validation" in row) == (row["step"] in (9, 19, 24))
        for shares in row.get("probability", {}).values():
            assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
        if "validation" in row:
            assert list(row["validation"]) == ["mean"]
            assert set(row["validation"]["mean"]) == {"inner_loss", "outer_loss"}
    assert (rows[0]["temperature"], rows[-1]["temperature"]) == pytest.approx((1.0, 0.3))
    assert (rows[0]["weight_learning_rate"], rows[-1]["weight_learning_rate"]) == pytest.approx((2e-3, 2e-4))
    assert all(row["entropy"] == 1 for row in rows[:5])
    assert rows[-1]["entropy"] < 0.99


@pytest.mark.parametrize("mixture", ["softmax", "gumbel"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_moves_weights_and_architecture(tiny, make_steps, estimator, mixture):
    rows, state = make_steps(tiny(search={"steps": 4, "warmup": 1, "estimator": estimator, "mixture": mixture}))
    assert "outer_loss" not in rows[0]
    assert all(math.isfinite(row["outer_loss"]) and row["fallback"] == 0 for row in rows[1:])
    assert [row["entropy"] for row in rows[:1]] == [1.0]
    assert rows[-1]["entropy"] < 1
    losses = [row["inner_loss"] for row in rows]
    assert len(set(losses)) == 4
    assert state["logits"].abs().amin() > 0
    assert all(tensor["step"] == 4 for tensor in state["weight_optimizer"]["state"].values())
    assert state["architecture_optimizer"]["state"][0]["step"] == 3


def test_training_passes_leave_the_running_statistics_alone(tiny):
    config = tiny(search={"estimator": "first_order"})
    state, parts = set_up(config, CPU), SearchParts(None, FusionLoss(), FusionLoss(), None, ALONE)
    before = {name: buffer.clone() for name, buffer in state.supernet.named_buffers()}
    batch = PairBatch(*torch.rand(2, 2, 1, 16, 16))
    for architecture_batch in (None, batch):
        search_step(config, state, parts, batch, architecture_batch)
    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in state.supernet.named_buffers())


@pytest.mark.parametrize(
    ("space", "crop"),
    [
        ({"norm": "group", "cells": ["multi_scale"], "stem": "half"}, 16),
        ({"norm": "none", "cells": ["decomposition", "successive"], "steps": 2}, 19),
        ({"norm": "batch", "cells": ["decomposition", "multi_scale"], "stem": "half", "steps": 2}, 19),
    ],
)
def test_every_kind_of_network_is_found_and_built(tiny, space, crop):
    config = tiny(space=space, search=FAST, data={"crop": crop, "batch_size": 1})
    genotype = search(config).genotype
    _, network = load_network_folder(config.run)
    assert (genotype.norm, genotype.stem) == (space["norm"], space.get("stem", "full"))
    assert network.eval()(*torch.rand(2, 1, 1, 21, 34)).shape == (1, 1, 21, 34)


def test_every_operator_can_be_searched(tiny, make_steps):
    names = []
    for kind, description in OPERATOR_KINDS.items():
        kernel = f"_k{description.kernels[-1]}" if description.kernels else ""
        dilation = f"_d{description.dilations[-1]}" if description.dilations else ""
        names.append(kind + kernel + dilation)
    config = tiny(space={"operators": names, "channels": 4}, search={**FAST, "mixture": "gumbel"})
    assert make_steps(config)[1]["logits"].shape == (1, 1, len(names))


def genotype_of(operator):
    return Genotype("x", "infrared-visible", "fusion", 2, (CellGenotype("successive", (operator,)),))


def test_costs_pull_towards_cheap_operators(tiny, make_steps):
    times = {"residual_k3_d1": 50.0, "spatial_attention_k3": 1.0}
    table = {f"{name} 2x16x16 batch": time for name, time in times.items()}
    rest = {"rest successive 2 batch full direct 16x16": 10.0}
    merge_latency_table(latency_table_path(CPU), table | rest, CPU)
    space, settings = {"operators": list(times)}, {"steps": 15, "warmup": 5, "architecture_learning_rate": 0.02}
    counts = [count_parameters(build_network(genotype_of(operator))) for operator in times]
    rows = {}
    for name, cost in (
        ("free", {}),
        ("charged", {"weight": 1.0}),
        ("within", {"budget": "1s"}),
        ("few", {"budget": f"{counts[1] + 1}params", "budget_weight": 100.0}),
    ):
        rows[name], _ = make_steps(tiny(name, space=space, cost=cost, search=settings))
    cheap = {name: run[-1]["probability"]["cell 1 step 1"]["spatial_attention_k3"] for name, run in rows.items()}
    for name in ("charged", "few"):
        assert cheap[name] > max(0.6, cheap["free"])
    # A budget that is kept does not change one bit of the search.
    assert [row["outer_loss"] for row in rows["within"][5:]] == [row["outer_loss"] for row in rows["free"][5:]]
    assert not {"latency_ms", "flops", "parameters"} & rows["free"][-1].keys()
    assert rows["charged"][5]["latency_ms"] == pytest.approx(10 + (50 + 1) / 2)
    assert rows["charged"][-1]["latency_ms"] < rows["charged"][5]["latency_ms"]
    assert rows["few"][5]["parameters"] == pytest.approx(sum(counts) / 2)
    assert "latency_ms" not in rows["few"][5]


def test_a_run_keeps_the_latency_table_it_began_with(tiny, make_steps):
    config = tiny(cost={"weight": 0.1})
    make_steps(config, at=5)
    table = (config.run / "latency.yaml").read_text(encoding="utf-8")
    own = load_latency_table(config.run / "latency.yaml", CPU)
    assert len(own) == 4
    shared = latency_table_path(CPU)
    assert shared.read_text(encoding="utf-8") == table
    save_latency_table(shared, dict.fromkeys(own, 1e6), CPU)
    rows, _ = make_steps(config, resume=True)
    assert (config.run / "latency.yaml").read_text(encoding="utf-8") == table
    assert rows[-1]["latency_ms"] < 1e5


@pytest.mark.parametrize("budget", [None, "0.001ms", "1 FLOPs"])
@pytest.mark.parametrize("clip", [5.0, 1e-3])
def test_a_step_is_that_of_the_formulas(tiny, budget, clip):
    config = tiny(
        space={"channels": 4, "steps": 2},
        search={"steps": 20, "warmup": 2, "weight_clip": clip, "temperature": (0.8, 0.4)},
        cost={"weight": 0.3, "budget": budget, "budget_weight": 0.7},
    )
    torch.manual_seed(0)
    state = set_up(config, CPU)
    penalty = open_cost_penalty(
        config.space.search_space,
        DeploymentTarget(16, 16, CPU),
        weight=0.3,
        budget=config.cost.parsed_budget,
        budget_weight=0.7,
    )
    state.step = 9
    with torch.no_grad():
        state.logits.normal_()
    before = [parameter.detach().clone() for parameter in state.supernet.parameters()]
    logits = state.logits.detach().clone()
    weight_batch, architecture_batch = (PairBatch(*torch.rand(2, 2, 1, 16, 16)) for _ in range(2))

    temperature = 0.8 * (0.4 / 0.8) ** (9 / 19)
    learning_rate = 2e-3 * (0.55 + 0.45 * math.cos(math.pi * 9 / 19))
    outer, inner = losses_of(config)

    def evaluate(loss, batch):
        fused = state.supernet(batch.first, batch.second, (a / temperature).softmax(-1))
        return loss(fused, batch.first, batch.second)

    a = logits.clone().requires_grad_()
    w = list(state.supernet.parameters())
    F_a, *F_w = torch.autograd.grad(evaluate(outer, architecture_batch), [a, *w], materialize_grads=True)
    f_a, *f_w = torch.autograd.grad(evaluate(inner, weight_batch), [a, *w], materialize_grads=True)
    dot = sum((x * y).sum() for x, y in zip(F_w, f_w, strict=True))
    c = dot / sum(x.square().sum() for x in f_w)
    p = (a / temperature).softmax(-1)
    costs = {kind: model.rest + (p * model.candidates[:, None].float()).sum() for kind, model in penalty.models.items()}
    cost = 0.3 * costs["ms"]
    if budget is not None:
        cost += 0.7 * torch.relu(costs["FLOPs"] - 1 if "FLOPs" in costs else costs["ms"] / 1e-3 - 1)
    G = F_a - c * f_a + torch.autograd.grad(cost, a)[0]
    norm = torch.stack([x.norm() for x in f_w]).norm()
    f_w = [x * min(1, clip / (norm + 1e-6)) for x in f_w]

    parts = SearchParts(None, outer, inner, penalty, ALONE)
    row = search_step(config, state, parts, weight_batch, architecture_batch)
    # The first step of Adam is lr g / (|g| + eps).
    for old, new, gradient in zip(before, w, f_w, strict=True):
        torch.testing.assert_close(gradient, new.grad, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(new.detach(), old - learning_rate * new.grad / (new.grad.abs() + 1e-8))
    torch.testing.assert_close(state.logits.grad, G, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(state.logits.detach(), logits - 5e-3 * G / (G.abs() + 1e-8), rtol=1e-4, atol=1e-6)
    assert row["coefficient"] == pytest.approx(c.item(), rel=1e-4)
    assert row["weight_gradient_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert row["latency_ms"] == pytest.approx(costs["ms"].item(), rel=1e-6)
    assert row["temperature"] == pytest.approx(temperature)


@pytest.mark.parametrize("clip", [5.0, 1e-3])
@pytest.mark.parametrize("estimator", ["finite_difference", "unrolled"])
def test_the_modelled_step_is_the_one_that_the_weights_take(tiny, estimator, clip):
    config = tiny(
        space={"channels": 4, "steps": 2},
        search={"steps": 20, "warmup": 2, "weight_clip": clip, "temperature": (1.0, 1.0), "estimator": estimator},
    )
    torch.manual_seed(0)
    state = set_up(config, CPU)
    state.supernet.double()
    state.logits.data = torch.randn_like(state.logits).double()
    outer, inner = losses_of(config)
    parts = SearchParts(None, outer, inner, None, ALONE)
    batches = [PairBatch(*torch.rand(2, 2, 1, 16, 16, dtype=torch.float64)) for _ in range(2)]
    for state.step in range(5):
        logits = state.logits.detach().clone()
        row = search_step(config, state, parts, *batches)
        # The estimate evaluates F at the weights of the model of the step.
        fused = state.supernet(batches[1].first, batches[1].second, logits.softmax(-1))
        expected = outer(fused, batches[1].first, batches[1].second).item()
        assert row["outer_loss"] == pytest.approx(expected, rel=1e-9), state.step


def test_a_loss_that_is_not_finite_is_one_line(tiny):
    config = tiny(search={"weight_learning_rate": 1e30, "weight_clip": 1e30})
    words = r"^step 1: .* is not finite: .*; lower search\.weight_learning_rate or search\.weight_clip and start anew"
    with pytest.raises(UserError, match=words):
        search(config)
    assert not (config.run / "genotype.yaml").exists()


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_searched(tiny, task):
    config = tiny(task=task, search={**FAST, "inner_loss": None, "outer_loss": None}, data={"crop": 36})
    assert search(config).genotype.task == task


def test_a_config_with_seeds_makes_as_many_searches(tiny):
    result = search(tiny(seeds=2, search=FAST))
    assert list(result.genotypes) == [0, 1]
    assert result.genotype.cells == result.genotypes[result.best_seed].cells
    single = search(tiny("single", search=FAST))
    assert (list(single.genotypes), single.best_seed) == ([0], 0)


def test_a_run_folder_given_as_a_dot_has_the_folders_name(tiny, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = tiny(search=FAST).model_copy(update={"run": Path()})
    assert search(config).genotype.name == "here"


def test_a_file_that_disappears_while_searching_is_one_line(tiny, tmp_path):
    for folder in ("ir", "vis"):
        for index in range(6):
            image = torch.randint(0, 256, (20, 24), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
            write_pixels(tmp_path / "pairs" / folder / f"{index}.png", image.numpy())
    config = tiny(data={"root": str(tmp_path / "pairs"), "cache_megabytes": 0})

    def lose(step, losses):
        for path in (tmp_path / "pairs" / "ir").iterdir():
            path.unlink()

    with pytest.raises(UserError, match=r"ir/\d\.png does not exist"):
        search(config, on_validation=lose)


@pytest.mark.slow
def test_real_pairs(tiny, shared):
    root = shared / "data" / "roadscene"
    if not root.is_dir():
        pytest.skip("no roadscene pairs")
    config = tiny(
        "roadscene",
        data={"root": str(root), "crop": 48, "batch_size": 4},
        space={"channels": 4, "cells": ["successive", "successive"], "steps": 2},
        search={"steps": 20, "warmup": 5},
    )
    genotype = search(config).genotype
    data = genotype.provenance["data"]
    assert data["root"] == [str(root)]
    assert data["training_pairs"] + data["architecture_pairs"] > data["validation_pairs"] > 0
    rows = read_history(config.run / "history.jsonl")
    assert len(rows) == 20
    assert rows[-1]["validation"]["mean"]["inner_loss"] < rows[0]["inner_loss"]
    assert json.dumps(genotype.provenance)
