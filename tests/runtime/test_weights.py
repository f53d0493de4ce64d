import math

import pytest
import torch
from safetensors import safe_open
from torch import nn

from timfuse.runtime.errors import UserError
from timfuse.runtime.weights import load_into, load_weights, save_weights


def network(channels=3, bias=True):
    return nn.Sequential(nn.Conv2d(1, channels, 3, bias=bias), nn.BatchNorm2d(channels))


def test_weights_come_back_bit_for_bit_with_their_metadata(tmp_path):
    path = tmp_path / "weights.safetensors"
    saved, loaded = network(), network()
    saved(torch.rand(2, 1, 4, 4))
    save_weights(path, saved.state_dict(), {"genotype": "tim"})
    load_into(loaded, path)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"genotype": "tim"}


def test_views_transposes_and_shared_tensors_can_be_saved(tmp_path):
    path = tmp_path / "weights.safetensors"
    base = torch.rand(3, 4)
    tensors = {"view": base[1:], "transposed": base.T, "same": base, "again": base, "scalar": torch.tensor(2)}
    save_weights(path, tensors, {})
    read = load_weights(path)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_saving_does_not_touch_the_network(tmp_path):
    module = network().to(memory_format=torch.channels_last)
    strides = [tensor.stride() for tensor in module.state_dict().values()]
    save_weights(tmp_path / "w.safetensors", module.state_dict(), {})
    assert [tensor.stride() for tensor in module.state_dict().values()] == strides


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (network(bias=False), r"1 missing \(first: 0\.bias\); use"),
        (
            network(channels=5),
            r"6 of another shape \(first: 0\.weight is \(5, 1, 3, 3\) in the file, \(3, 1, 3, 3\) in the net",
        ),
        (nn.Sequential(*network(), nn.PReLU()), r"1 unexpected \(first: 2\.weight\)"),
        (nn.Linear(1, 1), r"7 missing \(first: 0\.weight\), 2 unexpected \(first: bias\)"),
    ],
)
def test_another_architecture_is_one_line_and_touches_nothing(tmp_path, file, words):
    path = tmp_path / "w.safetensors"
    save_weights(path, file.state_dict(), {})
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(UserError, match=words) as caught:
        load_into(module, path)
    assert "belong to another architecture" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_missing_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="no weights file"):
        load_weights(path)
    save_weights(path, network().state_dict(), {})
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged or not a safetensors file"):
            load_weights(path)
    torch.save(network().state_dict(), path)
    with pytest.raises(UserError, match="not a safetensors file"):
        load_weights(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"w\.safetensors"):
        load_weights(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"count": torch.tensor(3), "a": torch.ones(2), "b": torch.tensor([1.0, value])}, {})
    with pytest.raises(
        UserError, match=r"weights\.safetensors holds values that are not finite, in b; get the file again"
    ):
        load_weights(path)


def test_weights_of_another_kind_of_number_are_refused(tmp_path):
    module = network()
    weights = module.state_dict()
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    save_weights(tmp_path / "weights.safetensors", {**weights, name: weights[name].int()}, {})
    with pytest.raises(
        UserError, match=rf"1 of another type \(first: {name} is torch.int32 in the file, torch.float32"
    ):
        load_into(module, tmp_path)
