import os
import pickle
import random
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from timfuse.runtime.checkpoint import capture_rng, load_checkpoint, load_optimizer, restore_rng, save_checkpoint
from timfuse.runtime.errors import UserError

from ..equality import assert_same


def draw():
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), *torch.rand(3).tolist()]


def test_network_optimiser_and_scheduler_come_back_bit_for_bit(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3))
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [2, 4])
    network(torch.rand(2, 1, 5, 5)).square().sum().backward()
    optimiser.step()
    schedule.step()
    state = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "step": 3,
        "alphas": OrderedDict(normal=torch.nn.Parameter(torch.rand(2, dtype=torch.float64))),
        "rng": capture_rng(),
    }
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    read = load_checkpoint(tmp_path / "checkpoint.pt")
    for name, tensor in state["network"].items():
        assert torch.equal(read["network"][name], tensor)
        assert read["network"][name].dtype == tensor.dtype
    assert torch.equal(read["alphas"]["normal"], state["alphas"]["normal"])
    assert read["schedule"] == state["schedule"]
    assert str(read["optimiser"]) == str(state["optimiser"])
    schedule.load_state_dict(read["schedule"])
    optimiser.load_state_dict(read["optimiser"])


@pytest.mark.parametrize("warm_up", [0, 1])
def test_random_numbers_go_on_where_they_were(tmp_path, warm_up):
    # After an odd number of Gaussian draws, Python and numpy hold the next one back.
    for _ in range(warm_up):
        random.gauss(0, 1)
        np.random.randn()
    save_checkpoint(tmp_path / "rng.pt", capture_rng())
    expected = draw()
    assert draw() != expected
    restore_rng(load_checkpoint(tmp_path / "rng.pt"))
    assert draw() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_random_numbers_of_cuda_go_on_where_they_were():
    torch.rand(1, device="cuda")
    state = capture_rng()
    expected = torch.rand(3, device="cuda")
    restore_rng(state)
    assert torch.equal(torch.rand(3, device="cuda"), expected)


def test_states_of_absent_cuda_devices_are_passed_over(monkeypatch):
    state = {**capture_rng(), "cuda": [torch.zeros(16, dtype=torch.uint8)] * 2}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    torch.rand(1)
    restore_rng(state)
    assert torch.equal(torch.get_rng_state(), state["torch"])


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"loss": np.float64(1)}, r"state\['loss'\] is a float64"),
        ({"a": [1, {"b": object()}]}, r"state\['a'\]\[1\]\['b'\] is a object"),
        ({"f": len}, "builtin_function"),
        ({"p": np.zeros(2)}, "ndarray"),
    ],
)
def test_what_could_not_be_loaded_again_is_not_saved(tmp_path, state, where):
    with pytest.raises(TypeError, match=where):
        save_checkpoint(tmp_path / "checkpoint.pt", state)
    assert list(tmp_path.iterdir()) == []


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["torch", "pickle", "legacy"])
def test_a_checkpoint_cannot_run_code(tmp_path, how):
    target, path = tmp_path / "was-run", tmp_path / "checkpoint.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"step": Malicious(target)}))
    else:
        torch.save({"step": Malicious(target)}, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(UserError, match="damaged or not a checkpoint") as caught:
        load_checkpoint(path)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    # The file does run code where it is trusted, so the refusal above is not for another reason.
    if how != "pickle":
        torch.load(path, weights_only=False)
        assert target.exists()


def test_a_checkpoint_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"weights": torch.rand(50), "step": 1})
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="damaged or not a checkpoint"):
            load_checkpoint(path)


def test_a_flipped_bit_in_a_tensor_is_found(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"weights": torch.zeros(1000)})
    content = bytearray(path.read_bytes())
    content[content.find(bytes(2000)) + 1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path)


def test_other_files(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(path)
    path.write_text("hello")
    with pytest.raises(UserError, match="not a checkpoint"):
        load_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(UserError, match="not a checkpoint"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="not a checkpoint"):
        load_checkpoint(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="cannot read"):
        load_checkpoint(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    real = open

    def full(name, mode="r", *rest):
        return real("/dev/full" if str(name).endswith(".tmp") else name, mode.replace("x", "w"), *rest)

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match="disk is full"):
        save_checkpoint(path, {"step": 2, "weights": torch.rand(10_000)})
    monkeypatch.undo()
    assert load_checkpoint(path) == {"step": 1}


def test_an_optimiser_goes_on_as_if_it_had_never_stopped():
    states = []
    for stops in (False, True):
        torch.manual_seed(0)
        network = torch.nn.Linear(2, 3)
        optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)
        for step in range(4):
            if stops and step == 2:
                kept = optimiser.state_dict()
                optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)
                load_optimizer(optimiser, kept)
            optimiser.zero_grad()
            network(torch.rand(5, 2)).square().sum().backward()
            optimiser.step()
        states.append([optimiser.state_dict(), network.state_dict()])
    assert_same(*states)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["state"][0].pop("exp_avg_sq"),
        lambda state: state["state"][0].update(exp_avg=torch.zeros(1)),
        lambda state: state["state"][0].update(exp_avg=torch.zeros(1, 3, 2)),
        lambda state: state["state"][0].update(exp_avg_sq=torch.tensor(1.0)),  # by which a fused step would crash
        lambda state: state["state"][0].update(exp_avg=torch.full((3, 2), torch.nan)),
        lambda state: state["state"].update({2: state["state"][0]}),
        lambda state: state["state"][0].update(exp_avg=[0.0]),
        lambda state: state["state"][0].update(step="x"),
        lambda state: state["state"][0].update(step=torch.tensor(-1.0)),  # by which the next step would divide by zero
        lambda state: state["state"][0].update(exp_avg=torch.zeros(3, 2).to_sparse()),
        lambda state: state["state"].update({0: None}),
        lambda state: state["param_groups"][0].update(amsgrad=True),
        lambda state: state["param_groups"][0].update(betas=None),
    ],
)
def test_moments_that_do_not_fit_are_found_before_the_first_step(change):
    network = torch.nn.Linear(2, 3)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    network(torch.rand(5, 2)).sum().backward()
    optimiser.step()
    saved = optimiser.state_dict()
    change(saved)
    fresh, before = torch.optim.Adam(network.parameters(), fused=True), network.weight.clone()
    with pytest.raises((LookupError, ValueError, TypeError)):
        load_optimizer(fresh, saved)
    assert torch.equal(network.weight, before)
    assert not fresh.state
