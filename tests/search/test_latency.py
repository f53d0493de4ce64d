import subprocess
import sys
import time

import pytest
import torch

from timfuse.genotypes import CellGenotype, Genotype
from timfuse.operators import build_network
from timfuse.runtime.device import device_name
from timfuse.runtime.errors import UserError
from timfuse.search import latency as latency_module
from timfuse.search.latency import (
    LatencyModel,
    cell_shapes,
    latency_term,
    load_table,
    measure,
    measure_network,
    save_table,
    table_path,
)

CPU = torch.device("cpu")
OPERATORS = ("residual_k3_d1", "spatial_attention_k3", "identity")


@pytest.fixture
def counted(monkeypatch):
    """Replace the clock by numbers that rise with each measurement; returns the list of measurements."""
    taken = []

    def fake(forward, device):
        taken.append(forward)
        forward()
        return float(len(taken))

    monkeypatch.setattr(latency_module, "measure", fake)
    return taken


def model(table, cells=("successive", "multi_scale"), norm="batch", stem="full", operators=OPERATORS):
    return LatencyModel(
        table,
        cells=cells,
        operators=operators,
        channels=4,
        norm=norm,
        stem=stem,
        head="direct",
        height=32,
        width=24,
        device=CPU,
    )


def test_what_is_measured_is_the_time_of_the_forward_pass():
    assert 20 <= measure(lambda: time.sleep(0.02), CPU) < 60


def test_the_first_runs_do_not_count(monkeypatch):
    durations = iter([9.0, 9.0, 0.001, 0.5, 0.002, 0.003, 0.004, 0.001, 0.001])
    clock = [0.0]
    monkeypatch.setattr(latency_module.time, "perf_counter", lambda: clock[0])

    def forward():
        clock[0] += next(durations)

    assert measure(forward, CPU) == pytest.approx(2.0)  # the median of the last seven


def test_measuring_a_network_keeps_its_mode_and_statistics():
    genotype = Genotype("x", "infrared-visible", "fusion", 4, (CellGenotype("successive", ("residual_k3_d1",)),))
    network = build_network(genotype).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert measure_network(network, 20, 18, CPU) > 0
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("successive", [(8, 33, 21)]),
        ("decomposition", [(8, 33, 21)] * 2),
        ("multi_scale", [(8, 33, 21), (16, 17, 11), (32, 9, 6)]),
    ],
)
def test_shapes_within_a_cell(kind, shapes):
    assert cell_shapes(kind, 8, 33, 21) == shapes


@pytest.mark.parametrize("kind", ["successive", "multi_scale", "decomposition"])
@pytest.mark.parametrize("stem", ["full", "half"])
def test_shapes_are_those_that_the_operators_of_a_network_see(kind, stem):
    genotype = Genotype("x", "infrared-visible", "fusion", 4, (CellGenotype(kind, ("identity",)),), stem=stem)
    network = build_network(genotype).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.Identity):
            module.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    with torch.no_grad():
        network(*torch.rand(2, 1, 1, 32, 48))
    shrink = 2 if stem == "half" else 1
    assert sorted(seen) == sorted(cell_shapes(kind, 4, 32 // shrink, 48 // shrink))


def test_one_hot_probabilities_cost_what_the_table_says(counted):
    table = {}
    latency = model(table)
    for first in range(3):
        for second in range(3):
            probabilities = torch.zeros(2, 2, 3)
            probabilities[0, :, first] = probabilities[1, :, second] = 1
            at_full = table[f"{OPERATORS[first]} 4 32 24 batch"]
            at_scales = sum(table[f"{OPERATORS[second]} {shape} batch"] for shape in ("4 32 24", "8 16 12", "16 8 6"))
            expected = table["rest of successive multi_scale 4 batch full direct 32 24"] + 2 * at_full + 2 * at_scales
            assert latency.expected(probabilities).item() == pytest.approx(expected)


def test_expected_latency_is_linear_and_has_the_costs_as_gradient(counted):
    latency = model({})
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 2, 3, 3, generator=generator).softmax(-1)[..., :2, :].unbind(0)
    mixed = latency.expected(0.3 * p + 0.7 * q)
    torch.testing.assert_close(mixed, 0.3 * latency.expected(p) + 0.7 * latency.expected(q))
    p.requires_grad_()
    (gradient,) = torch.autograd.grad(latency.expected(p), p)
    torch.testing.assert_close(gradient, latency.costs.unsqueeze(1).expand(2, 2, 3))


def test_gradient_by_the_logits_is_that_of_a_softmax(counted):
    latency = model({}, cells=("successive",))
    latency.costs = latency.costs.double()
    logits = torch.tensor([[[0.1, -0.4, 0.8]]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(latency_term(latency.expected((logits / 0.5).softmax(-1)), 0.7, None), logits)
    p = (logits / 0.5).softmax(-1).detach()
    costs = latency.costs.unsqueeze(1)
    expected = 0.7 * p * (costs - (p * costs).sum(-1, keepdim=True)) / 0.5
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("milliseconds", "budget", "value", "slope"),
    [(40.0, None, 20.0, 0.5), (40.0, 50.0, 0.0, 0.0), (75.0, 50.0, 0.25, 0.01), (100.0, 50.0, 0.5, 0.01)],
)
def test_term_in_the_outer_loss(milliseconds, budget, value, slope):
    latency = torch.tensor(milliseconds, requires_grad=True)
    term = latency_term(latency, 0.5, budget)
    assert term.item() == pytest.approx(value)
    assert torch.autograd.grad(term, latency)[0].item() == pytest.approx(slope)


def test_only_what_the_table_lacks_is_measured(counted):
    table = {}
    model(table)
    assert len(counted) == 3 * 3 + 1  # operators at three shapes, and the rest of the network
    known = dict(table)
    model(table)
    assert len(counted) == 10
    assert table == known
    model(table, norm="group")
    assert len(counted) == 20
    model(table, stem="half")  # 16x12, 8x6 and 4x3 at 4, 8 and 16 channels
    assert len(counted) == 30
    assert all(table[key] == value for key, value in known.items())


def test_table_comes_back_to_the_bit(tmp_path):
    table = {"residual_k3_d1 4 8 8 batch": 0.1 + 0.2, "rest of successive": 1e-5, "identity 4 8 8 batch": 3.0}
    save_table(tmp_path / "table.yaml", table, CPU)
    assert load_table(tmp_path / "table.yaml", CPU) == table
    assert load_table(tmp_path / "absent.yaml", CPU) == {}


def test_a_run_and_its_resumption_reckon_with_the_same_costs(tmp_path):
    table = {}
    measured = model(table)
    save_table(tmp_path / "table.yaml", table, CPU)
    loaded = model(load_table(tmp_path / "table.yaml", CPU))
    assert torch.equal(loaded.costs, measured.costs)
    assert loaded.rest == measured.rest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a latency table; delete it"),
        (b"- 1\n", "is not a latency table; delete it"),
        (b"device: x\n", "is not a latency table; delete it"),
        (b"device: x\nmilliseconds: [1]\n", "is not a latency table; delete it"),
        (b"device: x\nmilliseconds: {a: fast}\n", "is not a latency table; delete it"),
        (b"device: x\nmilliseconds: {a: null}\n", "is not a latency table; delete it"),
        (b"device: x\nmilliseconds: {a: true}\n", "is not a latency table; delete it"),
        (b"device: x\nmilliseconds: {a: -1}\n", "is not a latency table; delete it"),
        (b"device: x\nmilliseconds: {a: .nan}\n", "is not a latency table; delete it"),
        (b"device: x\nmilliseconds: {a: .inf}\n", "is not a latency table; delete it"),
        (b"\xff\xfe\x00", "is not a latency table; delete it"),
        (b"device: [\n", "not valid YAML"),
        (b"device: abacus\nmilliseconds: {a: 1}\n", "was measured on abacus, not on"),
    ],
)
def test_damaged_and_foreign_tables(tmp_path, content, message):
    path = tmp_path / "table.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_table(path, CPU)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_the_cache_is_where_the_user_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = table_path(CPU)
    assert path.parent == tmp_path / "cache" / "timfuse"
    assert path.name.startswith("latency-")
    assert all(letter.isalnum() or letter in "-." for letter in path.name)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert table_path(CPU).parent == tmp_path / "home" / ".cache" / "timfuse"


def test_a_table_belongs_to_a_number_of_threads():
    program = (
        "import torch; from timfuse.search.latency import table_path;"
        " torch.set_num_threads(2); print(table_path(torch.device('cpu')))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert other != str(table_path(CPU))
    assert device_name(CPU).endswith("1 thread")
