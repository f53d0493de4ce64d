"""None of the programs behind the published figures may ask for a name that is gone; their statistics are tested."""

import importlib
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_every_benchmark_can_be_imported():
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    assert len(names) > 5
    program = "\n".join(f"import benchmarks.{name}" for name in names)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def quality(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.search_quality")


def test_differences_are_paired_and_data_sets_weigh_the_same(quality):
    places = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1")]
    rows = [
        {"row": name, "seed": str(seed), "set": of_set, "pair": pair, "loss": str(loss)}
        for seed in (0, 1)
        for of_set, pair in places
        for name, loss in (("found", seed - (of_set == "b")), ("other", seed))
    ]
    found = quality.difference(rows, "found", "other", "loss")
    assert found.shape == (2, 4)
    assert found.mean(1) == pytest.approx([-0.5, -0.5])  # -1 on set b, and 0 on set a with three times the pairs


@pytest.mark.parametrize(("lead", "found"), [(0.0, False), (2.0, True)])
def test_an_interval_excludes_0_where_there_is_a_lead(quality, lead, found):
    generator = np.random.default_rng(0)
    differences = generator.normal(-lead, 1.0, (5, 40)) + generator.normal(0.0, 0.3, (5, 1))
    low, high = quality.interval(differences, generator)
    assert low < differences.mean() < high
    assert (high < 0) == found


@pytest.mark.parametrize("shape", ["shrunk", "hand_made"])
def test_networks_of_a_cost_cost_it(quality, monkeypatch, shape):
    counted = []

    def count(network, height, width):
        counted.append(quality.count_parameters(network) * 5e3)
        return counted[-1]

    monkeypatch.setattr(quality, "count_flops", count)
    network = quality.of_cost(quality.of_shape(getattr(quality, shape)), 0.2)
    assert quality.count_parameters(quality.build_network(network)) * 5e3 == pytest.approx(2e8, rel=0.05)
    assert len(counted) > 50


def test_the_best_of_some_networks_is_that_of_all_ways_to_draw_them(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    searches = importlib.import_module("benchmarks.table_searches")
    losses = np.random.default_rng(0).normal(size=(6, 3))
    for count in (1, 2, 4, 6):
        # One training chooses, the others tell the loss.
        expected = [
            np.delete(losses[min(drawn, key=lambda index: losses[index, seed])], seed).mean()
            for seed in range(3)
            for drawn in itertools.combinations(range(6), count)
        ]
        assert searches.best_of(losses, count) == pytest.approx(np.mean(expected))


def test_what_a_seed_does_to_all_networks_is_in_no_interval(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    searches = importlib.import_module("benchmarks.table_searches")
    of_seeds, budget = (-0.2, 0.3, -0.1), 2.0

    def rows(name, loss, search_seed=""):
        cells = {"budget": "2", "row": name, "search seed": search_seed}
        return [
            {**cells, "seed": str(seed), "loss_240": str(loss + effect), "loss_60": "1"}
            for seed, effect in enumerate(of_seeds)
        ]

    # The benchmark has a fourth training, by which its mean losses differ.
    table = [network for network in searches.trained_networks() if network.budget == budget]
    table = [replace(network, losses={240: [loss - 4.0 for loss in (*of_seeds, 5.0)]}) for network in table]
    monkeypatch.setattr(searches, "trained_networks", lambda: table)
    monkeypatch.setattr(searches, "controls", lambda: [(budget, 0, table[0].genotype)])
    monkeypatch.setattr(searches, "query", lambda genotype: table[0])
    found = [*rows("front", -4.5, "0"), *rows("front", -4.5, "1"), *rows("control 0", -4.1)]
    for name in ("plain", *searches.RULES):
        found += rows(name, -4.25)
    found += [row for name in (searches.UNTRAINED, *searches.TRIVIAL) for row in rows(name, -3.0)[:1]]
    lines = {name: cells for name, *cells in searches.compared(found, budget)}
    assert lines["plain"] == ["-4.2500", "-0.2500", "-0.2500 to -0.2500", "2 of 2"]
    assert lines["random"] == [
        "-4.1000",
        "-0.4000",
        "-0.4000 to -0.4000",
        "2 of 2",
    ]  # -4, shifted by that of the control


def test_networks_of_a_time_take_at_most_that_of_another(quality, monkeypatch):
    class Target:
        """A device on which each parameter takes a microsecond."""

        def forward_pass(self, network):
            return quality.count_parameters(network) / 1e3

        def measure(self, passes):
            return passes

    monkeypatch.setattr(quality, "TARGET", Target())
    monkeypatch.setattr(quality, "count_flops", lambda network, *_: quality.count_parameters(network))
    found, larger = (quality.shrunk(widths) for widths in ((8, 12, 16, 16), (10, 14, 20, 22)))
    network = quality.of_time(quality.shrunk, found)
    parameters = [quality.count_parameters(quality.build_network(each)) for each in (network, found, larger)]
    assert 0.9 * parameters[1] < parameters[0] <= 1.03 * parameters[1] < parameters[2]
