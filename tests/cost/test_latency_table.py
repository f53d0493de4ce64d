import multiprocessing
import subprocess
import sys

import pytest
import torch

from timfuse.cost.latency_table import latency_table_path, load_latency_table, merge_latency_table, save_latency_table
from timfuse.runtime.device import device_name
from timfuse.runtime.errors import UserError

CPU = torch.device("cpu")


def test_a_table_comes_back_to_the_bit(tmp_path):
    table = {"residual_k3_d1 4x8x8 batch": 0.1 + 0.2, "rest of successive": 1e-5, "identity 4x8x8 batch": 3.0}
    save_latency_table(tmp_path / "table.yaml", table, CPU)
    assert load_latency_table(tmp_path / "table.yaml", CPU) == table
    assert load_latency_table(tmp_path / "absent.yaml", CPU) == {}


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
        (b"\xff\xfe", "is not a latency table; delete it"),
        (b"device: [\n", "not valid YAML"),
        (b"device: abacus\nmilliseconds: {a: 1}\n", "was measured on abacus, not on"),
    ],
)
def test_damaged_and_foreign_tables(tmp_path, content, message):
    path = tmp_path / "table.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_latency_table(path, CPU)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_the_cache_is_where_the_user_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = latency_table_path(CPU)
    assert path.parent == tmp_path / "cache" / "timfuse"
    assert path.name.startswith("latency-")
    assert all(letter.isalnum() or letter in "-." for letter in path.name)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert latency_table_path(CPU).parent == tmp_path / "home" / ".cache" / "timfuse"


def test_a_table_belongs_to_a_number_of_threads():
    program = (
        "import torch; from timfuse.cost.latency_table import latency_table_path;"
        " torch.set_num_threads(2); print(latency_table_path(torch.device('cpu')))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert other != str(latency_table_path(CPU))
    assert device_name(CPU).endswith("1 thread")


def test_a_new_measurement_replaces_the_older_one_of_the_same_thing(tmp_path):
    path = tmp_path / "cache" / "table.yaml"
    merge_latency_table(path, {}, CPU)
    assert not path.exists()
    merge_latency_table(path, {"a": 1.0, "b": 2.0}, CPU)
    merge_latency_table(path, {"b": 3.0, "c": 4.0}, CPU)
    assert load_latency_table(path, CPU) == {"a": 1.0, "b": 3.0, "c": 4.0}


def add(path, process):
    for number in range(10):
        merge_latency_table(path, {f"{process} {number}": float(number)}, CPU)


def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "table.yaml"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(path, process)) for process in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert load_latency_table(path, CPU) == {
        f"{process} {number}": number for process in range(4) for number in range(10)
    }
