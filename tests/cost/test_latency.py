import time
from functools import partial

import pytest
import torch

from timfuse.cost import latency as latency_module
from timfuse.cost.latency import CHAINED, ROUNDS, measure, measure_network, measure_space
from timfuse.cost.latency_table import load_table, table_path
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.operators import build_network, load_operators
from timfuse.operators.inference import DenseInParts
from timfuse.search.search_config import SpaceSection

CPU = torch.device("cpu")
OPERATORS = ("residual_k3_d1", "spatial_attention_k3", "identity")


@pytest.fixture
def counted(monkeypatch):
    """Replace the clock by numbers that rise with each measurement; returns the list of measurements."""
    taken = []

    def fake(forwards, device, progress=None):
        times = []
        for forward in forwards:
            taken.append(forward)
            forward()
            times.append(float(len(taken)))
        return times

    monkeypatch.setattr(latency_module, "measure", fake)
    return taken


def space(cells=("successive", "multi_scale"), **settings):
    return SpaceSection(**{"cells": cells, "operators": OPERATORS, "channels": 4, **settings})


def times_of(space, height=32, width=24, **settings):
    return measure_space(space.bare, space.operators, height, width, CPU, **settings)


def test_what_is_measured_is_the_time_of_the_forward_pass():
    (milliseconds,) = measure([lambda: time.sleep(0.02)], CPU)
    assert 20 <= milliseconds < 60


class Clock:
    """Stands for the module `time`; passes take as long as they are told to."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def perf_counter(self):
        return self.now

    def forward(self, name, durations):
        self.order.append(name)
        self.now += next(durations)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency_module, "time", clock)
    return clock


def test_a_round_visits_all_and_counts_the_fastest_run_after_a_first_one(clock):
    # So long a first run leaves time for two more.
    seconds = {"a": [0.5, 0.02, 0.03], "b": [0.9, 0.1, 0.05]}
    forwards = [
        partial(clock.forward, name, iter([value + 0.001 * number for number in range(ROUNDS) for value in values]))
        for name, values in seconds.items()
    ]
    later = ROUNDS // 2  # milliseconds in the median round
    assert measure(forwards, CPU) == [pytest.approx(20 + later), pytest.approx(50 + later)]
    assert clock.order == ROUNDS * ["a", "a", "a", "b", "b", "b"]


def test_a_busy_moment_does_not_count(clock):
    busy = [1.0] * 9 + [0.01] * 100
    assert measure([partial(clock.forward, "a", iter(busy))], CPU) == [10]


def test_what_takes_seconds_runs_once(clock):
    forwards = [partial(clock.forward, "slow", iter([3.0])), partial(clock.forward, "fast", iter([0.001] * 100))]
    assert measure(forwards, CPU) == [3000, 1]
    assert clock.order.count("slow") == 1
    assert clock.order.count("fast") == ROUNDS * 6


def test_measuring_a_network_leaves_it_and_runs_it_as_it_is_used(monkeypatch):
    genotype = Genotype("x", "infrared-visible", "fusion", 4, (CellGenotype("successive", ("dense_k3_d1",)),))
    network = build_network(genotype).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ready = []
    monkeypatch.setattr(latency_module, "measure", lambda forwards, device: ready.extend(forwards) or [1.0])
    assert measure_network(network, 20, 18, CPU) == 1.0
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    (forward,) = ready
    assert any(isinstance(module, DenseInParts) for module in forward.func.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in forward.func.modules())
    assert forward.func.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(forward(), network.eval()(*forward.args), rtol=1e-4, atol=1e-5)


def test_a_real_measurement():
    times = times_of(space(cells=("successive",)), 16, 16, beside=[build_network(space().bare)])
    assert 0 <= times.model.candidates[0, 2] < times.model.candidates[0, 0] < times.model.rest
    assert times.networks[0] > 0


@pytest.mark.parametrize("stem", ["full", "half"])
def test_a_network_costs_its_rest_and_its_operators_at_their_shapes(counted, stem):
    cells = ("successive", "multi_scale", "decomposition")
    model, table, _ = times_of(space(cells, stem=stem), 33, 26)  # padded to 36x28, or to 40x32 and then halved
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
    assert len(counted) == len(table) == 3 * 3 + 1
    assert model.of([[0, 1], [2, 2], [1, 0]]) == pytest.approx(
        model.rest + expected[0][0] + expected[0][1] + 2 * expected[1][2] + expected[2][1] + expected[2][0]
    )


def test_operators_are_measured_in_a_chain_and_on_what_reaches_them(counted):
    seen = []
    times = times_of(space(("successive",)), 16, 16)
    for forward in counted[1:]:
        operator, x = forward.args
        assert x.shape == (1, 4, 16, 16)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert x.std() > 0
        operator.register_forward_hook(lambda *arguments: seen.append(arguments))
        forward()
    assert len(seen) == CHAINED * 3
    assert times.table["residual_k3_d1 4x16x16 batch"] == 2.0 / CHAINED


def test_only_what_the_cache_lacks_is_measured(counted):
    _, table, _ = times_of(space())
    assert len(counted) == 3 * 3 + 1  # operators at three shapes, and the rest of the network
    again = times_of(space())
    assert len(counted) == 10
    assert again.table == table == load_table(table_path(CPU), CPU)
    times_of(space(norm="group"))
    assert len(counted) == 20
    _, larger, networks = times_of(space(stem="half"), beside=[build_network(space().bare)] * 2)
    assert len(counted) == 32  # 16x12, 8x6 and 4x3 at 4, 8 and 16 channels, the rest, and two networks
    assert networks == [31.0, 32.0]
    assert all(larger[key] == value for key, value in table.items())
    anew = times_of(space(), known={})
    assert len(counted) == 42
    assert anew.table.keys() == table.keys()
    assert load_table(table_path(CPU), CPU) == {**larger, **anew.table}


def test_a_run_and_its_resumption_reckon_with_the_same_costs(counted):
    measured = times_of(space())
    resumed = times_of(space(), known=measured.table)
    assert torch.equal(resumed.model.candidates, measured.model.candidates)
    assert resumed.model.rest == measured.model.rest
    assert len(counted) == 10


def test_an_operator_of_ones_own_is_measured_but_not_kept_for_others(counted, tmp_path):
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
    for _ in range(2):
        model, table, _ = times_of(space(("successive",), operators=("halved", "identity")))
        assert model.candidates[0, 0] == table["halved 4x32x24 batch"] > 0
    assert len(counted) == 4
    assert set(load_table(table_path(CPU), CPU)) == {
        "identity 4x32x24 batch",
        "rest successive 4 batch full direct 24x32",
    }
