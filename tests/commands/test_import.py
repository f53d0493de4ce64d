"""`timfuse import` of published weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from timfuse.genotypes import load_genotype, save_genotype
from timfuse.operators import build_network
from timfuse.runtime.weights import load_into

REFERENCE = Path(__file__).parents[1] / "operators" / "reference"
PUBLISHED = {
    "stage1_main": "tim",
    "stage1_light": "tim_light",
    "stage2_ivif": "tim_ivif",
    "stage2_medical": "tim_mri_pet",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_importing_published_weights(run, name):
    index = json.loads((REFERENCE / "index.json").read_text(encoding="utf-8"))
    genotype = replace(load_genotype(PUBLISHED[name]), channels=index["channels"])
    save_genotype(genotype, Path("narrow.yaml"))
    code, output, _ = run("import", REFERENCE / f"{name}.pt", "--genotype", "narrow.yaml", "--output", "imported")
    assert code == 0
    assert output == f"{index['nets'][name]['parameters']:,} parameters in imported/weights.safetensors\n"
    assert load_genotype(Path("imported")) == genotype
    network = build_network(load_genotype(Path("imported"))).eval()
    load_into(network, Path("imported/weights.safetensors"))
    with np.load(REFERENCE / "expected.npz") as arrays, torch.no_grad():
        outputs = network(*(torch.from_numpy(arrays[source]) for source in index["nets"][name]["inputs"]))
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        for number, image in enumerate(outputs):
            expected = torch.from_numpy(arrays[f"{name}/output{number}"])
            torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)


def test_importing_what_does_not_fit(refused):
    main = REFERENCE / "stage1_main.pt"
    line = refused("import", main, "-g", "tim_ivif", "-o", "out")
    assert str(main) in line
    assert "belong to another genotype" in line
    line = refused("import", main, "-g", "tim", "-o", "out")
    assert "check the genotype and its number of channels" in line
    assert "cannot read gone.pt" in refused("import", "gone.pt", "-g", "tim", "-o", "out")
    assert "tiny.yaml is damaged or holds more than tensors" in refused("import", "tiny.yaml", "-g", "tim", "-o", "out")
    torch.save({"a": print}, "program.pt")
    assert "program.pt is damaged or holds more than tensors" in refused("import", "program.pt", "-g", "tim", "-o", "o")
    torch.save([1, 2], "list.pt")
    assert "list.pt holds no state dict" in refused("import", "list.pt", "-g", "tim", "-o", "out")
    assert not Path("out").exists()


class Whole(torch.nn.Linear):
    """A class that a whole model names, so that reading it would need the program that saved it."""


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"<!DOCTYPE html><html><title>Quota exceeded</title></html>", " is damaged or holds more than tensors"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n", " is damaged or holds more than"),
        (Whole(2, 3), " is damaged or holds more than tensors"),
        (Whole(2, 3).state_dict(), ": the weights have no stem2.0.conv2d.weight"),
    ],
)
def test_downloads_that_are_no_weights(refused, content, line):
    Path("x.pth").write_bytes(content) if isinstance(content, bytes) else torch.save(content, "x.pth")
    assert f"x.pth{line}" in refused("import", "x.pth", "-g", "tim_ivif", "-o", "out")
    assert not Path("out").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"epoch": 3, "state_dict": weights}])
def test_weights_as_others_save_them(run, zipped, wrap):
    index = json.loads((REFERENCE / "index.json").read_text(encoding="utf-8"))
    save_genotype(replace(load_genotype("tim_light"), channels=index["channels"]), Path("narrow.yaml"))
    plain = torch.load(REFERENCE / "stage1_light.pt")
    named = wrap({f"module.{name}": tensor for name, tensor in plain.items()})  # as DataParallel names them
    torch.save(named, "x.pth", _use_new_zipfile_serialization=zipped)
    for path, output in ((REFERENCE / "stage1_light.pt", "plain"), ("x.pth", "named")):
        assert run("import", path, "-g", "narrow.yaml", "-o", output)[0] == 0
    assert Path("named/weights.safetensors").read_bytes() == Path("plain/weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda tensor: tensor.to(torch.complex64), "holds no state dict"),
        (lambda tensor: tensor.to_sparse(), "holds no state dict"),
        (lambda tensor: tensor.to("meta"), "holds no state dict"),
        (lambda tensor: [tensor], "holds no state dict"),
        (lambda tensor: tensor * float("nan"), "holds values that are not finite, in stem.0.conv2d.weight"),
    ],
)
def test_tensors_that_are_no_weights(refused, change, line):
    index = json.loads((REFERENCE / "index.json").read_text(encoding="utf-8"))
    save_genotype(replace(load_genotype("tim"), channels=index["channels"]), Path("narrow.yaml"))
    content = torch.load(REFERENCE / "stage1_main.pt")
    content["stem.0.conv2d.weight"] = change(content["stem.0.conv2d.weight"])
    torch.save(content, "changed.pt")
    assert line in refused("import", "changed.pt", "-g", "narrow.yaml", "-o", "out")
    assert not Path("out").exists()
