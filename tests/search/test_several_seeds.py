"""Searches of several seeds: what is equal in them, which is picked, and going on after a stop."""

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
from timfuse.runtime.weights import load_weights, save_weights
from timfuse.search import SearchConfig, print_seeds, search, search_seeds, several_seeds
from timfuse.search.search_setup import open_batches

from .test_resume import assert_same, assert_same_runs

SHORT = {"steps": 3, "warmup": 1}


@pytest.fixture
def no_pictures(monkeypatch):
    """Most of the time of a tiny search goes into its pictures."""
    for module in ("search_conclusion", "several_seeds"):
        for name in ("draw", "draw_probabilities"):
            monkeypatch.setattr(f"timfuse.search.{module}.{name}", lambda *arguments: None)


@pytest.fixture
def stub(monkeypatch, no_pictures):
    """A function that replaces searches by ones that find given operators, outer losses and budgets, in turn."""

    def replace_search(*found):
        rows = iter(found)

        def pretend(config, resume=False):
            operators, loss, *met = next(rows)
            provenance = {
                "parameters": 10,
                "latency": {"milliseconds": 2 * loss},
                "metrics": {"derived_validation_outer_loss": loss, "derived_validation_inner_loss": 2.0},
                **({"budget": BudgetReport("1ms", "ms", 1.0, 1.0, met[0]).provenance} if met else {}),
            }
            cells = (CellGenotype("successive", operators), CellGenotype("multi_scale", operators[:1]))
            genotype = Genotype(config.run.name, "mri-ct", "fusion", 2, cells, provenance=provenance)
            save_weights(config.run / "weights.safetensors", build_network(genotype).state_dict(), {})
            (config.run / "history.jsonl").touch()
            save_genotype(genotype, config.run / "genotype.yaml")

        monkeypatch.setattr(several_seeds, "search", pretend)

    return replace_search


def test_searches_share_the_parts_and_the_validation_crops_and_nothing_else(tiny, no_pictures):
    config = tiny(seed=5, seeds=2, search=SHORT)
    report = search_seeds(config)
    assert list(report.genotypes) == [5, 6]
    runs = [config.run / "seed-5", config.run / "seed-6"]
    configs = [load_config(SearchConfig, run / "config.yaml") for run in runs]
    streams = [open_batches(own, torch.device("cpu"), ALONE)[0] for own in configs]
    assert streams[0].pairs.sets[0].split == streams[1].pairs.sets[0].split
    assert_same([batch[:2] for batch in streams[0].validation()], [batch[:2] for batch in streams[1].validation()])
    assert not torch.equal(*(next(iter(stream.weight(0, 1))).first for stream in streams))

    alone = tiny("alone", seed=5, search=SHORT)
    search(alone)
    assert_same_runs(alone.run, runs[0])
    again = configs[1].model_copy(update={"run": alone.run.with_name("again")})
    search(again)
    assert_same_runs(again.run, runs[1])


def test_the_folder_of_all_holds_the_picked_one(tiny):
    config = tiny("all", seeds=2, search=SHORT)
    report = search_seeds(config)
    picked, genotype = config.run / f"seed-{report.picked}", load_genotype(config.run)
    assert genotype == report.genotype
    assert genotype.name == "all"
    assert replace(genotype, name=picked.name, provenance={}) == replace(load_genotype(picked), provenance={})
    each = [
        load_genotype(config.run / f"seed-{seed}").provenance["metrics"]["derived_validation_outer_loss"]
        for seed in (0, 1)
    ]
    assert each[report.picked] == min(each)
    assert genotype.provenance["seeds"] == {
        "count": 2,
        "picked": report.picked,
        "derived_validation_outer_loss": {"mean": sum(each) / 2, "std": stdev(each), "each": each},
    }
    assert genotype.provenance["seed"] == report.picked
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
def test_the_least_loss_within_the_budget_is_picked(tiny, stub, found, picked):
    stub(*((("identity",), *row) for row in found))
    assert search_seeds(tiny(seeds=3)).picked == picked


def test_a_report_tells_deviations_and_agreement(tiny, stub, capsys):
    stub((("identity", "dense_k3_d1"), 0.1), (("identity", "identity"), 0.3), (("dense_k3_d1", "identity"), 0.2))
    report = search_seeds(tiny(seeds=3))
    assert report.agreement == {
        "cell 1 step 1": ("identity", 2),
        "cell 1 step 2": ("identity", 2),
        "cell 2 step 1": ("identity", 2),
    }
    print_seeds(report)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:6] == [
        "0 identity, dense_k3_d1 identity 0.1000 2.0000 0.20 10",
        "1 identity, identity identity 0.3000 2.0000 0.60 10",
        "2 dense_k3_d1, identity dense_k3_d1 0.2000 2.0000 0.40 10",
        "mean ± std 0.2000 ± 0.1000 2.0000 ± 0.0000 0.40 ± 0.20 10 ± 0",
        "cell 1 step 1: identity in 2 of 3",
    ]
    assert lines[-1].startswith("picked seed 0")


class Killed(BaseException):
    """Ends a search as a signal would."""


def test_going_on_with_more_seeds_after_a_stop(tiny, monkeypatch, no_pictures):
    whole, stopped = tiny("whole", seeds=3, search=SHORT), tiny("stopped", seeds=2, search=SHORT)
    search_seeds(whole)

    def die(*arguments, **options):
        raise Killed

    with monkeypatch.context() as patch:

        def die_in_the_second(config, **options):
            if config.seed == 1:
                patch.setattr("timfuse.search.search_recipe.conclude", die)
            search(config, **options)

        patch.setattr(several_seeds, "search", die_in_the_second)
        with pytest.raises(Killed):
            search_seeds(stopped)
    finished = (stopped.run / "seed-0" / "genotype.yaml").stat().st_mtime_ns
    assert not (stopped.run / "genotype.yaml").exists()
    resumed = stopped.model_copy(update={"seeds": 3})
    report = search_seeds(resumed, resume=True)
    assert list(report.genotypes) == [0, 1, 2]
    assert (stopped.run / "seed-0" / "genotype.yaml").stat().st_mtime_ns == finished
    for seed in range(3):
        assert_same_runs(whole.run / f"seed-{seed}", stopped.run / f"seed-{seed}")
    names = (whole.run / "genotype.yaml", stopped.run / "genotype.yaml")
    assert len({str(load_genotype(name).provenance["seeds"]) for name in names}) == 1


def test_overwriting_replaces_all(tiny, stub):
    config = tiny(seeds=3)
    stub(*[(("identity",), 0.1)] * 5)
    search_seeds(config)
    (config.run / "seed-2" / "notes.txt").write_text("mine", encoding="utf-8")
    search_seeds(config.model_copy(update={"seeds": 2}), overwrite=True)
    assert not (config.run / "seed-2" / "genotype.yaml").exists()
    assert [path.name for path in (config.run / "seed-2").iterdir()] == ["notes.txt"]
    assert load_genotype(config.run).provenance["seeds"]["count"] == 2


def test_one_search_and_several_do_not_mix(tiny, stub):
    config = tiny(seeds=2, search=SHORT)
    stub(*[(("identity",), 0.1)] * 2)
    search_seeds(config)
    with pytest.raises(UserError, match="holds a run; go on with --resume"):
        search_seeds(config)
    one = config.model_copy(update={"seeds": 1})
    with pytest.raises(UserError, match="seeds was 2 and is now 1"):
        search(one, resume=True)
    with pytest.raises(UserError, match="seed was 0 and is now 1"):
        search_seeds(config.model_copy(update={"seed": 1}), resume=True)
    search(one, overwrite=True)
    assert not (config.run / "seed-0").exists()
    with pytest.raises(UserError, match="holds a single search; go on with it without --seeds"):
        search_seeds(config, resume=True)
