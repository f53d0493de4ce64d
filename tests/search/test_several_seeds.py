"""Searches of several seeds: what is equal in them, which is picked, and going on with more."""

import json
from dataclasses import replace
from statistics import stdev

import pytest
import torch

from timfuse.cost import BudgetReport
from timfuse.genotypes import CellGenotype, Genotype, load_genotype
from timfuse.operators import build_network, load_network_folder, save_network_folder
from timfuse.runtime.config import config_to_yaml, load_config
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.search import SearchConfig, print_seeds, search
from timfuse.search.search_setup import open_batches
from timfuse.search.several_seeds import search_seeds

from ..equality import assert_same
from ..tiny_runs import tiny_search

SHORT = {"steps": 3, "warmup": 1}
PROBABILITY = {"cell 1 step 1": {"identity": 0.6, "dense_k3_d1": 0.4}}


def finds(*found):
    """A function like a search that finds given operators, outer losses and whether the budget is met, in turn."""
    rows = iter(found)

    def pretend(config, resume):
        operators, loss, *met = next(rows)
        provenance = {
            "parameters": 10,
            "latency": {"milliseconds": 2 * loss},
            "metrics": {"derived": {"mean": {"outer_loss": loss, "inner_loss": 2.0}}},
            **({"budget": BudgetReport("1ms", "ms", 1.0, 1.0, met[0]).provenance} if met else {}),
        }
        cells = (CellGenotype("successive", operators), CellGenotype("multi_scale", operators[:1]))
        genotype = Genotype(config.run.name, "mri-ct", "fusion", 2, cells, provenance=provenance)
        save_network_folder(config.run, genotype, build_network(genotype))
        (config.run / "config.yaml").write_text(config_to_yaml(config), encoding="utf-8")
        (config.run / "history.jsonl").write_text(json.dumps({"step": 0, "probability": PROBABILITY}) + "\n")

    return pretend


def several(config, *found, resume=False, overwrite=False):
    return search_seeds(config, finds(*found), resume=resume, overwrite=overwrite)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The config and the result of two searches."""
    config = tiny_search(tmp_path_factory.mktemp("runs") / "all", seed=5, seeds=2, search=SHORT)
    return config, search(config)


def test_searches_share_the_parts_and_the_validation_crops_and_nothing_else(both, tiny):
    config, result = both
    assert list(result.genotypes) == [5, 6]
    runs = [config.run / "seed-5", config.run / "seed-6"]
    configs = [load_config(SearchConfig, run / "config.yaml") for run in runs]
    first, second = (open_batches(own, torch.device("cpu"), ALONE)[0] for own in configs)
    assert first.pairs.sets[0].split == second.pairs.sets[0].split
    assert_same([batch[:2] for batch in first.validation()], [batch[:2] for batch in second.validation()])
    assert not torch.equal(*(next(batches.weight(0, 1)).first for batches in (first, second)))
    # Each is the search of its config alone.
    alone = configs[1].model_copy(update={"run": tiny("alone").run})
    search(alone)
    assert read_history(alone.run / "history.jsonl") == read_history(runs[1] / "history.jsonl")


def test_the_folder_of_all_holds_the_picked_one(both):
    config, result = both
    picked, genotype = config.run / f"seed-{result.best_seed}", load_genotype(config.run)
    assert genotype == result.genotype
    assert genotype.name == "all"
    assert replace(genotype, name=picked.name, provenance={}) == replace(load_genotype(picked), provenance={})
    each = [
        load_genotype(config.run / f"seed-{seed}").provenance["metrics"]["derived"]["mean"]["outer_loss"]
        for seed in (5, 6)
    ]
    assert each[result.best_seed - 5] == min(each)
    assert genotype.provenance["seeds"] == {
        "count": 2,
        "picked": result.best_seed,
        "outer_loss": {"mean": sum(each) / 2, "std": stdev(each), "each": each},
    }
    assert genotype.provenance["seed"] == result.best_seed
    assert_same(*(dict(load_network_folder(run)[1].state_dict()) for run in (config.run, picked)))
    for name in ("network.svg", "cell_1.png", "probabilities.svg"):
        assert (config.run / "pictures" / name).is_file()
    assert not list(config.run.rglob("*.tmp"))


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
    assert several(tiny(seeds=3), *((("identity",), *row) for row in found)).best_seed == picked


def test_a_report_tells_deviations_and_agreement(tiny, capsys):
    found = (("identity", "dense_k3_d1"), 0.1), (("identity", "identity"), 0.3), (("dense_k3_d1", "identity"), 0.2)
    result = several(tiny(seeds=3), *found)
    assert result.agreement == {
        "cell 1 step 1": ("identity", 2),
        "cell 1 step 2": ("identity", 2),
        "cell 2 step 1": ("identity", 2),
    }
    print_seeds(result)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:6] == [
        "0 identity, dense_k3_d1 identity 0.1000 2.0000 0.20 10",
        "1 identity, identity identity 0.3000 2.0000 0.60 10",
        "2 dense_k3_d1, identity dense_k3_d1 0.2000 2.0000 0.40 10",
        "mean ± std 0.2000 ± 0.1000 2.0000 ± 0.0000 0.40 ± 0.20 10 ± 0",
        "cell 1 step 1: identity in 2 of 3",
    ]
    assert lines[-1].startswith("picked seed 0")


IDENTITY = (("identity",), 0.1)


def test_going_on_with_more_seeds_keeps_what_is_finished(tiny):
    config = tiny(seeds=2)
    with pytest.raises(StopIteration):  # in the second one
        several(config, IDENTITY)
    assert not (config.run / "genotype.yaml").exists()
    finished = (config.run / "seed-0" / "genotype.yaml").stat().st_mtime_ns
    result = several(config.model_copy(update={"seeds": 3}), IDENTITY, (("dense_k3_d1",), 0.05), resume=True)
    assert (list(result.genotypes), result.best_seed) == ([0, 1, 2], 2)
    assert (config.run / "seed-0" / "genotype.yaml").stat().st_mtime_ns == finished


def test_overwriting_replaces_all(tiny):
    config = tiny(seeds=3)
    several(config, *[IDENTITY] * 3)
    (config.run / "seed-2" / "notes.txt").write_text("mine", encoding="utf-8")
    several(config.model_copy(update={"seeds": 2}), *[IDENTITY] * 2, overwrite=True)
    assert not (config.run / "seed-2" / "genotype.yaml").exists()
    assert [path.name for path in (config.run / "seed-2").iterdir()] == ["notes.txt"]
    assert load_genotype(config.run).provenance["seeds"]["count"] == 2


def test_one_search_and_several_do_not_mix(tiny):
    config = tiny(seeds=2, search=SHORT)
    several(config, *[IDENTITY] * 2)
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
