"""A search of refine networks behind a frozen first stage: its losses, its run folder, and that it resumes."""

import shutil

import pytest
import torch

from timfuse.bilevel import ESTIMATORS
from timfuse.data import PairBatch
from timfuse.deploy import load_network
from timfuse.genotypes import load_genotype
from timfuse.objectives import FusionLoss
from timfuse.operators import build_network, count_flops, load_network_folder, save_network_folder
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.errors import UserError
from timfuse.search import search
from timfuse.search.search_setup import SearchParts, first_stage_of, set_up
from timfuse.search.search_step import search_step
from timfuse.training import TrainConfig, train

from ..equality import assert_same
from ..tiny_runs import DETECTION, NETWORKS

FAST = {"steps": 4, "warmup": 1}
SPACE = {"preset": "tim-refine", "cells": ["successive"] * 3, "sources": ["first", "second", "second"]}
CPU = torch.device("cpu")


@pytest.fixture
def first(tmp_path):
    """The folder of a network that fuses."""
    torch.manual_seed(1)
    save_network_folder(tmp_path / "first", NETWORKS["envelope"], build_network(NETWORKS["envelope"]))
    return tmp_path / "first"


@pytest.fixture
def refining(tiny, first):
    """A function that makes the config of a tiny search of refine networks; keyword arguments change its keys."""

    def make(run="run", **changes):
        return tiny(
            run, **{"first_stage": str(first), "search": FAST, **changes, "space": SPACE | changes.get("space", {})}
        )

    return make


@pytest.mark.parametrize(("task", "merge"), [("mri-ct", "gated"), ("multi-focus", "concat")])
def test_the_found_network_fuses_what_its_first_stage_fuses(refining, first, task, merge):
    config = refining(task=task, space={"merge": merge})
    genotype = search(config).genotype
    assert (genotype.task, genotype.network, genotype.merge) == (task, "refine", merge)
    assert [cell.source for cell in genotype.cells] == SPACE["sources"]
    kept = config.run / "first_stage"
    assert (kept / "weights.safetensors").read_bytes() == (first / "weights.safetensors").read_bytes()
    assert load_genotype(kept) == load_genotype(first)
    before, network = (load_network_folder(folder)[1].eval() for folder in (kept, config.run))
    sources = torch.rand(2, 1, 1, 20, 18)
    expected = network(*sources, before(*sources))[2]
    torch.testing.assert_close(load_network(config.run)(*sources), expected, rtol=1e-4, atol=1e-5)
    assert genotype.provenance["flops_640x480"] == count_flops(network, 480, 640, inputs=3)
    assert genotype.provenance["first_stage"] == str(first)
    assert f"{first}; costs are without it" in (config.run / "report.html").read_text(encoding="utf-8")


def test_the_found_network_can_be_trained(refining):
    config = refining()
    search(config)
    training = TrainConfig(
        run=config.run.with_name("trained"),
        device="cpu",
        genotype=str(config.run),
        first_stage=config.run / "first_stage",
        data={"synthetic_pairs": 5, "crop": 24, "batch_size": 1},
        train={"steps": 2, "warmup": 1, "validate_every": 2, "images": 0},
    )
    assert train(training).genotype.cells == load_genotype(config.run).cells


def test_the_losses_are_those_of_a_training_of_the_refined_image_and_of_both_side_images(refining):
    config = refining(search={**FAST, "estimator": "first_order", "weight_clip": 1e9})
    state, stage = set_up(config, CPU), first_stage_of(config, ALONE, resume=False)
    outer, inner = FusionLoss(gradient=0.4), FusionLoss(intensity=1.0)
    state.step = 1
    batches = [PairBatch(*torch.rand(2, 2, 1, 16, 16)) for _ in range(2)]

    def value(loss, batch, logits):
        rough = stage.network(batch.first, batch.second)
        first, second, fused = state.supernet(batch.first, batch.second, rough, (logits / temperature).softmax(-1))
        sides = (first - batch.first).abs().mean() + (second - batch.second).abs().mean()
        return loss(fused, batch.first, batch.second) + TrainConfig().train.side_weight * sides

    temperature = 0.3 ** (1 / 3)
    logits, weights = torch.zeros_like(state.logits, requires_grad=True), list(state.supernet.parameters())
    expected = torch.autograd.grad(value(outer, batches[1], logits), logits)[0]
    f = value(inner, batches[0], logits)
    gradients = torch.autograd.grad(f, weights)
    row = search_step(config, state, SearchParts(None, outer, inner, None, ALONE, stage), *batches)
    assert row["inner_loss"] == pytest.approx(f.item(), rel=1e-6)
    torch.testing.assert_close(state.logits.grad, expected)
    for weight, gradient in zip(weights, gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_moves_all_weights_and_logits_and_no_first_stage(refining, make_steps, estimator):
    config = refining(search={**FAST, "estimator": estimator, "mixture": "gumbel"})
    rows, state = make_steps(config)
    assert all(row["fallback"] == 0 for row in rows[1:])
    assert state["logits"].abs().amin() > 0
    assert all(moments["step"] == 4 for moments in state["weight_optimizer"]["state"].values())


@pytest.mark.parametrize("downstream", [None, DETECTION])
def test_a_search_resumes_to_the_bit_without_the_folder_of_its_first_stage(refining, first, make_steps, downstream):
    changes = {"search": {"steps": 6, "warmup": 2, "validate_every": 3}, "downstream": downstream, "data": {"crop": 32}}
    whole, stopped = (refining(run, **changes) for run in ("whole", "stopped"))
    expected = make_steps(whole)
    make_steps(stopped, at=2)
    shutil.rmtree(first)
    rows, state = make_steps(stopped, resume=True)
    assert_same(expected[1], state)
    assert_same(expected[0], rows)
    search(stopped, resume=True)
    assert load_network(stopped.run).genotype.network == "refine"


def test_searches_with_several_seeds_share_the_first_stage_that_they_began_with(refining, first):
    config = refining(seeds=2)
    result = search(config)
    for folder in (config.run, *(config.run / f"seed-{seed}" for seed in (0, 1))):
        assert load_network(folder).genotype.network == "refine"
        assert load_genotype(folder).provenance["first_stage"] == str(first)
    shutil.rmtree(first)
    shutil.rmtree(config.run / "seed-1")
    assert search(config, resume=True).genotypes[1].cells == result.genotypes[1].cells


def test_candidates_are_trained_behind_the_first_stage(refining):
    config = refining(
        data={"crop": 24, "batch_size": 1},
        verify={"candidates": 2, "rounds": 2, "steps": 2, "validation_pairs": 1},
        cost={"front": "1kparams"},
    )
    result = search(config)
    assert {candidate.genotype.network for candidate in result.verification.candidates} == {"refine"}
    weights = (config.run / "first_stage" / "weights.safetensors").read_bytes()
    trainings = [path.parent for path in (config.run / "verification").glob("round-*/*/config.yaml")]
    assert len(trainings) == 2 + 2 + 1 + 1
    for folder in (config.run / "front" / "1kparams", *trainings):
        assert (folder / "first_stage" / "weights.safetensors").read_bytes() == weights
        assert load_network(folder).genotype.network == "refine"
    provenance = result.genotype.provenance
    assert provenance["flops_640x480"] == count_flops(build_network(result.genotype), 480, 640, inputs=3)
    assert "best random network" in (config.run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_stage": None}, "the preset tim-refine is a refine network: give first_stage, the run folder of the"),
        (
            {"space": {"preset": "tim", "sources": None}},
            "the preset tim is no refine network, and so has no first_stage; leave that out",
        ),
        ({"first_stage": "nothing"}, "nothing"),
    ],
)
def test_a_first_stage_is_that_of_a_refine_network(refining, changes, message, seeds):
    config = refining(**changes, seeds=seeds)
    with pytest.raises(UserError) as caught:
        search(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.run.exists()
