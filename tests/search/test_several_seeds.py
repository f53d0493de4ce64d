"""Searches of several seeds: what is equal in them, which is picked, and going on after a stop."""

import json
from dataclasses import replace
from statistics import stdev

import pytest
import torch

from timfuse.cost import BudgetReport
from timfuse.genotypes import CellGenotype, Genotype, load_genotype, save_genotype
from timfuse.operators import build_network
from timfuse.runtime.config import load_config
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.errors import UserError
from timfuse.runtime.files import write_atomically
from timfuse.runtime.weights import load_weights, save_weights
from timfuse.search import SearchConfig, print_seeds, search
from timfuse.search.search_setup import open_batches
from timfuse.search.several_seeds import search_seeds

from ..equality import assert_same

SHORT = {"steps": 3, "warmup": 1}


def pretended(*found):
    """Return a search that finds given operators, outer losses and, if there are any, kept budgets, in turn."""
    rows = iter(found)

    def pretend(config, resume=False):
        operators, loss, *met = next(rows)
        provenance = {
            "parameters": 10,
            "latency": {"milliseconds": 2 * loss},
            "metrics": {"derived": {"mean": {"outer_loss": loss, "inner_loss": 2.0}}},
            **({"budget": BudgetReport("1ms", "ms", 1.0, 1.0, met[0]).provenance} if met else {}),
        }
        cells = (CellGenotype("successive", operators), CellGenotype("multi_scale", operators[:1]))
        genotype = Genotype(config.run.name, "mri-ct", "fusion", 2, cells, provenance=provenance)
        save_weights(config.run / "weights.safetensors", build_network(genotype).state_dict(), {})
        row = {"step": 0, "probability": {"cell 1 step 1": {"identity": 1.0, "dense_k3_d1": 0.0}}}
        write_atomically(config.run / "history.jsonl", json.dumps(row) + "\n")
        save_genotype(genotype, config.run / "genotype.yaml")

    return pretend


def test_searches_share_the_parts_and_the_validation_crops_and_nothing_else(tiny):
    config = tiny(seed=5, seeds=2, search=SHORT)
    assert list(search(config).genotypes) == [5, 6]
    runs = [config.run / "seed-5", config.run / "seed-6"]
    configs = [load_config(SearchConfig, run / "config.yaml") for run in runs]
    batches = [open_batches(own, torch.device("cpu"), ALONE)[0] for own in configs]
    assert batches[0].pairs.sets[0].split == batches[1].pairs.sets[0].split
    for first, second in zip(batches[0].validation(), batches[1].validation(), strict=True):
        assert torch.equal(first.first, second.first)
        assert torch.equal(first.second, second.second)
    assert not torch.equal(*(next(iter(each.weight(0, 1))).first for each in batches))

    alone = tiny("alone", seed=5, search=SHORT)
    search(alone)
    assert (alone.run / "history.jsonl").read_bytes() == (runs[0] / "history.jsonl").read_bytes()
    assert_same(load_weights(alone.run / "weights.safetensors"), load_weights(runs[0] / "weights.safetensors"))


def test_the_folder_of_all_holds_the_picked_one(tiny):
    config = tiny("all", seeds=2, search=SHORT)
    result = search(config)
    picked, genotype = config.run / f"seed-{result.best_seed}", load_genotype(config.run)
    assert genotype == result.genotype
    assert genotype.name == "all"
    assert replace(genotype, name=picked.name, provenance={}) == replace(load_genotype(picked), provenance={})
    each = [
        load_genotype(config.run / f"seed-{seed}").provenance["metrics"]["derived"]["mean"]["outer_loss"]
        for seed in (0, 1)
    ]
    assert each[result.best_seed] == min(each)
    assert genotype.provenance["seeds"] == {
        "count": 2,
        "picked": result.best_seed,
        "outer_loss": {"mean": sum(each) / 2, "std": stdev(each), "each": each},
    }
    assert genotype.provenance["seed"] == result.best_seed
    assert_same(load_weights(config.run / "weights.safetensors"), load_weights(picked / "weights.safetensors"))
    for name in ("network.svg", "cell_1.png", "probabilities.svg"):
        assert (config.run / "pictures" / name).is_file()
    assert not list(config.run.rglob("*.tmp"))
    build_network(genotype).load_state_dict(load_weights(config.run / "weights.safetensors"))


@pytest.mark.parametrize(
    ("found", "picked"),
    [
        ([(0.3,), (0.1,), (0.2,)], 1),
        ([(0.1,), (0.1,), (0.2,)], 0),
        ([(0.3, True), (0.1, False), (0.2, True)], 2),
        ([(0.3, False), (0.1, False), (0.2, False)], 1),
    ],
)
def test_the_least_loss_within_the_budget_is_picked(tiny, found, picked):
    searches = pretended(*((("identity",), *row) for row in found))
    assert search_seeds(tiny(seeds=3), searches, resume=False, overwrite=False).best_seed == picked


def test_the_table_has_deviations_and_agreement(tiny, capsys):
    found = (("identity", "dense_k3_d1"), 0.1), (("identity", "identity"), 0.3), (("dense_k3_d1", "identity"), 0.2)
    result = search_seeds(tiny(seeds=3), pretended(*found), resume=False, overwrite=False)
    assert result.agreement == {
        "cell 1 step 1": ("identity", 2),
        "cell 1 step 2": ("identity", 2),
        "cell 2 step 1": ("identity", 2),
    }
    print_seeds(result)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:6] == [
        "0 identity, dense_k3_d1 | identity 0.1000 2.0000 0.20 10",
        "1 identity, identity | identity 0.3000 2.0000 0.60 10",
        "2 dense_k3_d1, identity | dense_k3_d1 0.2000 2.0000 0.40 10",
        "mean ± std 0.2000 ± 0.1000 2.0000 ± 0.0000 0.40 ± 0.20 10 ± 0",
        "cell 1 step 1: identity in 2 of 3",
    ]
    assert lines[-1].startswith("picked seed 0")


def test_going_on_with_more_seeds(tiny):
    whole, first = tiny("whole", seeds=3, search=SHORT), tiny("first", seeds=2, search=SHORT)
    search(whole)
    search(first)
    finished = (first.run / "seed-0" / "genotype.yaml").stat().st_mtime_ns
    result = search(first.model_copy(update={"seeds": 3}), resume=True)
    assert list(result.genotypes) == [0, 1, 2]
    assert (first.run / "seed-0" / "genotype.yaml").stat().st_mtime_ns == finished
    for seed in range(3):
        weights = (run / f"seed-{seed}" / "weights.safetensors" for run in (whole.run, first.run))
        assert len({path.read_bytes() for path in weights}) == 1
    assert load_genotype(whole.run).provenance["seeds"] == load_genotype(first.run).provenance["seeds"]


def test_overwriting_replaces_all(tiny):
    config, searches = tiny(seeds=3), pretended(*[(("identity",), 0.1)] * 5)
    search_seeds(config, searches, resume=False, overwrite=False)
    (config.run / "seed-2" / "notes.txt").write_text("mine", encoding="utf-8")
    search_seeds(config.model_copy(update={"seeds": 2}), searches, resume=False, overwrite=True)
    assert not (config.run / "seed-2" / "genotype.yaml").exists()
    assert [path.name for path in (config.run / "seed-2").iterdir()] == ["notes.txt"]
    assert load_genotype(config.run).provenance["seeds"]["count"] == 2


def test_one_search_and_several_do_not_mix(tiny):
    config = tiny(seeds=2, search=SHORT)
    search_seeds(config, pretended(*[(("identity",), 0.1)] * 2), resume=False, overwrite=False)
    with pytest.raises(UserError, match="holds a run; go on with --resume"):
        search(config)
    one = config.model_copy(update={"seeds": 1})
    with pytest.raises(UserError, match="seeds was 2 and is now 1"):
        search(one, resume=True)
    with pytest.raises(UserError, match="seed was 0 and is now 1"):
        search(config.model_copy(update={"seed": 1}), resume=True)
    search(one, overwrite=True)
    assert not (config.run / "seed-0").exists()
    with pytest.raises(UserError, match="holds a single search; go on with it without --seeds"):
        search(config, resume=True)
