import pytest
import torch

from timfuse.runtime.device import device_name, select_device
from timfuse.runtime.errors import UserError


def test_the_cpu_is_always_there():
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "mps:0", "CUDA", "cuda:1:2"])
def test_unknown_names(name):
    with pytest.raises(UserError, match="unknown device"):
        select_device(name)


def test_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(UserError, match=f"device {name} is not available.*--set device=cpu"):
            select_device(name)


def test_with_two_cuda_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert select_device("auto") == select_device("cuda") == torch.device("cuda:0")
    assert select_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="the last one is cuda:1"):
        select_device("cuda:2")


def test_without_mps(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="mps is not available"):
        select_device("mps")


def test_the_name_of_the_cpu_has_its_model_and_threads():
    name = device_name(torch.device("cpu"))
    model, _, threads = name.rpartition(", ")
    assert model
    assert threads.split()[0] == str(torch.get_num_threads())
