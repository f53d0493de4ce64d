"""Weights of the authors' released code, converted, give the outputs of that code.

`reference/` holds state dicts with random weights, and the inputs and outputs of the released modules.
"""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from timfuse.genotypes import CellGenotype, Genotype, load_genotype
from timfuse.operators import build_network, build_operator, convert_released, count_parameters
from timfuse.operators.released import read_released
from timfuse.runtime.errors import UserError

REFERENCE = Path(__file__).parent / "reference"
INDEX = json.loads((REFERENCE / "index.json").read_text())
KINDS = {
    "Denseblocks": "dense_k{}_d{}",
    "Residualblocks": "residual_k{}_d{}",
    "DilConv": "dilated_k{}_d{}",
    "SepConv": "separable_k{}",
    "ECAattention": "channel_attention_k{}",
    "SPAattention": "spatial_attention_k{}",
    "NonLocalattention": "non_local_k{}",
}


NOT_STATE_DICTS = {
    "numbers as keys": {1: torch.zeros(1)},
    "a number at state_dict": {"state_dict": {"model": 3}},
    "sparse": {"a": torch.eye(3).to_sparse()},
    "complex": {"a": torch.zeros(1, dtype=torch.complex64)},
    "empty": {},
}


def genotype(network, cells, merge=None):
    cells = tuple(CellGenotype(kind, tuple(operators), source) for kind, source, operators in cells)
    return Genotype("reference", "infrared-visible", network, INDEX["channels"], cells, merge=merge)


LIGHT = ["residual_k3_d1", "channel_attention_k3"]
MAIN = ("successive", None, ["dense_k3_d1", "dilated_k3_d2"])
NETWORKS = {
    "stage1_light": genotype("fusion", [("successive", None, LIGHT)] * 2),
    "stage1_main": genotype("fusion", [("multi_scale", None, ["residual_k3_d1", "dilated_k3_d2"]), MAIN]),
    "stage1_decomposition": genotype("fusion", [("decomposition", None, ["residual_k3_d1"] * 2), MAIN]),
    "stage2_ivif": dataclasses.replace(load_genotype("tim_ivif"), channels=INDEX["channels"]),
    "stage2_medical": genotype(
        "refine",
        [("successive", "first", ["residual_k3_d1", "residual_k5_d1"])] * 2
        + [("successive", "second", ["separable_k3", "residual_k5_d1"])] * 2,
        merge="concat",
    ),
}


@pytest.fixture(scope="module")
def expected():
    with np.load(REFERENCE / "expected.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def released_weights(name):
    return torch.load(REFERENCE / f"{name}.pt", weights_only=True)


def operator_from(released_name):
    kind, kernel, *dilation = released_name.split("_")
    return build_operator(KINDS[kind].format(kernel, *dilation), channels=8)


def loaded(module, weights):
    module.load_state_dict(convert_released(module, weights))
    return module.eval()


@pytest.mark.parametrize("name", INDEX["ops"])
@torch.no_grad()
def test_operators_give_the_released_outputs(name, expected):
    operator = loaded(operator_from(name), released_weights("operators")[name])
    torch.testing.assert_close(operator(expected["op_input"]), expected[f"op/{name}"], rtol=0, atol=1e-5)
    assert count_parameters(operator) == INDEX["ops"][name]["parameters"]


@pytest.mark.parametrize("name", INDEX["nets"])
@torch.no_grad()
def test_networks_give_the_released_outputs(name, expected):
    entry = INDEX["nets"][name]
    network = loaded(build_network(NETWORKS[name]), released_weights(name))
    outputs = network(*(expected[source] for source in entry["inputs"]))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert len(outputs) == entry["outputs"]
    for index, output in enumerate(outputs):
        torch.testing.assert_close(output, expected[f"{name}/output{index}"], rtol=0, atol=1e-5)
    assert count_parameters(network) == entry["parameters"]


@pytest.mark.parametrize(("name", "count"), [("tim", 994_917), ("tim_light", 127_358), ("tim_ivif", 237_308)])
def test_zoo_networks_have_the_published_numbers_of_parameters(name, count):
    assert count_parameters(build_network(load_genotype(name))) == count


def test_weights_saved_from_data_parallel_are_the_same_weights():
    network, weights = build_network(NETWORKS["stage1_main"]), released_weights("stage1_main")
    plain = convert_released(network, weights)
    wrapped = convert_released(network, {f"module.{key}": tensor for key, tensor in weights.items()})
    assert plain.keys() == wrapped.keys()
    assert all(torch.equal(plain[key], wrapped[key]) for key in plain)


def test_every_released_tensor_arrives_once():
    network, weights = build_network(NETWORKS["stage1_main"]), released_weights("stage1_main")
    marked = {
        key: tensor if key.endswith(".filt") else torch.full_like(tensor, index)
        for index, (key, tensor) in enumerate(weights.items())
    }
    arrived = sorted(tensor.flatten()[0].item() for tensor in convert_released(network, marked).values())
    assert arrived == [index for index, key in enumerate(marked) if not key.endswith(".filt")]


def altered(change):
    weights = released_weights("stage1_main")
    change(weights)
    return weights


def alter_one_filter(weights):
    key = next(key for key in weights if key.endswith(".filt"))
    weights[key] = weights[key].clone()
    weights[key][-1, 0, 0, 0] += 0.1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda weights: weights.pop("cells.1._ops.0._op.conv2.conv.weight"),
            r"no cells\.1\._ops\.0\._op\.conv2",
        ),
        (lambda weights: weights.update(extra=torch.zeros(1)), "no place for 1 weights, first extra"),
        (
            lambda weights: weights.update({"stem_out.0.conv2d.bias": torch.zeros(3)}),
            r"stem_out\.0\.conv2d\.bias has shape \(3,\), the genotype needs \(16,\)",
        ),
        (alter_one_filter, r"\.filt is not the binomial 3x3 filter"),
    ],
)
def test_weights_of_something_else_are_refused(change, told):
    with pytest.raises(UserError, match=told) as error:
        convert_released(build_network(NETWORKS["stage1_main"]), altered(change))
    assert "\n" not in str(error.value)


def test_weights_of_another_genotype_are_refused():
    with pytest.raises(UserError, match="another genotype"):
        convert_released(build_network(NETWORKS["stage1_main"]), released_weights("stage1_light"))
    with pytest.raises(UserError, match="number of channels"):
        convert_released(build_network(load_genotype("tim_light")), released_weights("stage1_light"))


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_file_holds_the_state_dict_alone_or_under_a_key(tmp_path, key):
    weights = released_weights("stage1_light")
    path = tmp_path / "weights.pt"
    torch.save(weights if key is None else {"epoch": 3, key: weights}, path)
    read = read_released(path)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


class Command:
    """What a malicious file would run when it is read as a pickle."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (Command(), "holds more than tensors"),
        ({"weight": torch.zeros(2), "bias": Command()}, "holds more than tensors"),
        ({"weight": "text"}, "holds no state dict"),
        ({}, "holds no state dict"),
        (torch.zeros(2), "holds no state dict"),
        (None, "cannot read .*weights.pt"),
    ],
)
def test_files_without_plain_tensors_are_refused(tmp_path, monkeypatch, content, told):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        torch.save(content, "weights.pt")
    with pytest.raises(UserError, match=told) as error:
        read_released(Path("weights.pt"))
    assert "\n" not in str(error.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize("size", [0, 10, 5_000, 70_000])
def test_a_file_that_was_cut_off_is_refused(tmp_path, size):
    path = tmp_path / "weights.pt"
    path.write_bytes((REFERENCE / "stage1_light.pt").read_bytes()[:size])
    with pytest.raises(UserError, match="is damaged"):
        read_released(path)


def test_half_precision_weights_are_converted():
    network = build_network(NETWORKS["stage1_main"])
    weights = {name: tensor.half() for name, tensor in released_weights("stage1_main").items()}
    assert all(tensor.dtype != torch.half for tensor in convert_released(network, weights).values())


@pytest.mark.parametrize("kind", NOT_STATE_DICTS)
def test_what_is_no_state_dict_is_refused(tmp_path, kind):
    torch.save(NOT_STATE_DICTS[kind], tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth holds no state dict"):
        read_released(tmp_path / "x.pth")


def test_values_that_are_not_finite_are_refused(tmp_path):
    torch.save({"a": torch.ones(1), "b": torch.tensor([torch.nan])}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"not finite, in b; get the file again"):
        read_released(tmp_path / "x.pth")


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 3), (0, 1, 3, 3), (2, 1, 5, 5)])
def test_a_filter_of_another_shape_is_refused(shape):
    module = build_operator("channel_attention_k3", 4)
    with pytest.raises(UserError, match=r"x\.filt is not the binomial|the weights have no"):
        convert_released(module, {"x.filt": torch.zeros(shape)})
