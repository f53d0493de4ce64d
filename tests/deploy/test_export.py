import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from timfuse.cli import app
from timfuse.deploy import export as export_module
from timfuse.deploy import load
from timfuse.deploy.export import export_onnx
from timfuse.genotypes import (
    ALL_OPERATORS,
    OPERATOR_KINDS,
    CellGenotype,
    Genotype,
    parse_operator,
    save_genotype,
)
from timfuse.operators import build_network
from timfuse.operators.normalisation import BatchNorm
from timfuse.runtime.errors import UserError
from timfuse.runtime.weights import save_weights

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")

SHAPES = ((1, 1, 1), (1, 37, 53), (2, 64, 96), (3, 5, 18), (1, 130, 7))  # batch, height, width
SMALL = (CellGenotype("successive", ("residual_k3_d1", "identity")),)


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    monkeypatch.setattr(export_module, "CHECKED_SHAPES", ((1, 37, 53), (2, 24, 32)))
    monkeypatch.setattr(export_module, "TIMED_SHAPE", (1, 24, 32))


def make_network(genotype):
    """A network with statistics as after a training, whose images have contrast: clipped ones would all be equal."""
    torch.manual_seed(0)
    network = build_network(genotype)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    network.eval().requires_grad_(False)
    if genotype.head in ("envelope", "bands", "sources"):
        return network
    outputs = []
    hook = network.head[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    network(*torch.rand(3 if genotype.network == "refine" else 2, 1, 1, 64, 64))
    hook.remove()
    last, scale = network.head[-1], 0.1 / outputs[0].std()
    last.weight *= scale
    last.bias.copy_((last.bias - outputs[0].mean()) * scale + 0.5)
    return network


def make_run(folder, genotype, network):
    save_weights(folder / "weights.safetensors", network.state_dict(), {})
    save_genotype(genotype, folder / "genotype.yaml")
    return folder


def fusion(*cells, **fields):
    return Genotype("small", "mri-pet", "fusion", 4, cells, **fields)


def assert_same(path, fuse):
    """Compare with the network itself on more sizes than the export did, unclipped."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, height, width in SHAPES:
        first, second = torch.rand(2, batch, 1, height, width)
        with torch.inference_mode():
            expected = fuse(first, second).clamp(0, 1).numpy()
        assert height * width == 1 or expected.std() > 0.02
        (fused,) = session.run(["fused"], {"first": first.numpy(), "second": second.numpy()})
        assert fused.shape == (batch, 1, height, width)
        assert np.abs(fused - expected).max() < 1e-5


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    genotype = fusion(*SMALL, stem="half", provenance={"data": {"terms": "research only"}})
    genotype = replace(genotype, task="xray-neutron", sources=("X-ray", "neutron"))
    return make_run(tmp_path_factory.mktemp("small"), genotype, make_network(genotype))


# The smallest and the largest operator of each kind. Every export takes seconds, so that each tests as much as it can.
ENDS = {
    kind: tuple(dict.fromkeys((names[0], names[-1])))
    for kind in OPERATOR_KINDS
    if kind != "non_local" and (names := [name for name in ALL_OPERATORS if parse_operator(name).kind == kind])
}
OPERATORS = tuple(name for names in ENDS.values() for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "operators", "norm", "stem", "head"),
    [
        ("successive", OPERATORS, "batch", "half", "envelope"),
        ("multi_scale", ("dilated_k3_d2",), "none", "full", "direct"),
        ("decomposition", ("channel_attention_k3",), "group", "full", "direct"),
    ],
)
def test_every_operator_cell_norm_stem_and_head(kind, operators, norm, stem, head, tmp_path):
    genotype = fusion(CellGenotype(kind, operators), norm=norm, stem=stem, head=head)
    network = make_network(genotype)
    export_onnx(make_run(tmp_path, genotype, network), tmp_path / "model.onnx")
    assert_same(tmp_path / "model.onnx", network)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "head"), [((4, 6), "sources"), ((0, 4, 6), "bands")])
def test_a_pyramid_network(channels, head, tmp_path):
    cells = (CellGenotype("successive", ("plain_k3", "residual_k3_d1"), level=len(channels) - 1),)
    genotype = Genotype("coarse", "mri-pet", "pyramid", channels, cells, norm="none", stem="half", head=head)
    network = make_network(genotype)
    export_onnx(make_run(tmp_path, genotype, network), tmp_path / "model.onnx")
    assert_same(tmp_path / "model.onnx", network)


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["gated", "concat"])
def test_a_refine_network_with_its_first_stage(merge, tmp_path):
    cells = tuple(CellGenotype("successive", ("separable_k3",), source) for source in ("first", "second"))
    genotype = Genotype("refined", "mri-ct", "refine", 4, cells, merge=merge)
    network = make_network(genotype)
    first_genotype = fusion(*SMALL)
    first_stage = make_network(first_genotype)
    make_run(tmp_path / "first_stage", first_genotype, first_stage)
    export_onnx(make_run(tmp_path, genotype, network), tmp_path / "model.onnx")
    assert_same(tmp_path / "model.onnx", lambda first, second: network(first, second, first_stage(first, second))[-1])


@pytest.mark.slow
def test_a_network_that_detectors_modulate(tmp_path, write_guiding_detectors):
    genotype = fusion(*SMALL, stem="half", head="envelope")
    network = make_network(genotype)
    detectors = write_guiding_detectors(make_run(tmp_path, genotype, network))
    export_onnx(tmp_path, tmp_path / "model.onnx")
    assert_same(
        tmp_path / "model.onnx",
        lambda first, second: network(first, second, attention=detectors.attention(first, second)),
    )


def test_the_model_says_what_it_is(small_run, tmp_path):
    path = tmp_path / "new" / "model.onnx"
    result = CliRunner().invoke(app, ["export", str(small_run), "-o", str(path)])
    assert result.exit_code == 0, result.output
    written, timed = result.stdout.splitlines()
    assert written.startswith(f"{path}: {path.stat().st_size:,} bytes, opset 18, at most ")
    assert re.match(r"640x480 pair: [\d.]+ ms in onnxruntime, [\d.]+ ms in PyTorch \(.*1 thread\)", timed)
    model = onnx.load(path)
    about = {entry.key: entry.value for entry in model.metadata_props}
    told = [about[key] for key in ("name", "task", "first", "second")]
    assert told == ["small", "xray-neutron", "X-ray", "neutron"]
    assert "Cb and Cr" in about["colour"]
    assert '"terms": "research only"' in about["provenance"]
    assert model.opset_import[0].version == 18
    for value in (*model.graph.input, *model.graph.output):
        assert [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim] == [
            "batch",
            1,
            "height",
            "width",
        ]
    assert [value.name for value in model.graph.input] == ["first", "second"]
    # How torch traced it, with the paths of this machine, is nobody's business and larger than the weights.
    assert not re.search(rb"\.py|torch", path.read_bytes())


def test_a_difference_leaves_no_file(small_run, tmp_path, monkeypatch):
    def shifted(onnxruntime, content):
        fuse = in_onnxruntime(onnxruntime, content)
        return lambda first, second: fuse(first, second) + (2e-4 if len(first) == 2 else 0)

    in_onnxruntime = export_module._in_onnxruntime
    monkeypatch.setattr(export_module, "_in_onnxruntime", shifted)
    path = tmp_path / "model.onnx"
    path.write_text("what was there before")
    with pytest.raises(UserError, match=r"model\.onnx is not written: at 32x24 .* differs from PyTorch by 0\.0002"):
        export_onnx(small_run, path)
    assert path.read_text() == "what was there before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package(package, small_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs the package {package}; pip install timfuse\[export\]"):
        export_onnx(small_run, tmp_path / "model.onnx")


def test_non_local_attention_is_refused(tmp_path):
    genotype = fusion(CellGenotype("successive", ("identity", "non_local_k5")))
    run = make_run(tmp_path, genotype, build_network(genotype))
    with pytest.raises(UserError, match="non_local_k5 compares every pixel"):
        export_onnx(run, tmp_path / "model.onnx")


def test_an_unknown_network(tmp_path):
    result = CliRunner().invoke(app, ["export", str(tmp_path / "nothing"), "-o", str(tmp_path / "model.onnx")])
    assert isinstance(result.exception, UserError)
    assert "nothing" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_example_fuses_as_timfuse_does_without_torch(small_run, tmp_path):
    export_onnx(small_run, tmp_path / "model.onnx")
    generator = np.random.default_rng(0)
    images = {"first": (30, 41), "grey": (30, 41), "colour": (30, 41, 3)}
    for name, shape in images.items():
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    program = "import runpy, sys; sys.modules |= {'torch': None, 'timfuse': None}; del sys.argv[0]; "
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    example = Path(__file__).resolve().parents[2] / "examples" / "fuse_onnx.py"
    for second in ("grey", "colour"):
        files = [str(tmp_path / name) for name in ("model.onnx", "first.png", f"{second}.png", f"fused-{second}.png")]
        subprocess.run([sys.executable, "-c", program, example, *files], check=True)
        fused = np.asarray(Image.open(files[-1]))
        sources = [np.asarray(Image.open(file)) for file in files[1:3]]
        expected = load(small_run, "cpu")(*sources)
        assert fused.shape == expected.shape == images[second]
        assert np.abs(fused.astype(int) - expected).max() <= 1


def test_integers_are_calibrated_on_pairs(small_run, tmp_path, folders):
    words = ["export", str(small_run), "-o", str(tmp_path / "model.onnx"), "--int8"]
    shutil.move(folders / "ir", folders / "pairs" / "X-ray")
    shutil.move(folders / "vis", folders / "pairs" / "neutron")
    assert "--int8 and --data go together" in str(CliRunner().invoke(app, words).exception)
    result = CliRunner().invoke(app, [*words, "--data", str(folders / "pairs")])
    assert result.exit_code == 0, result.output
    decibels = re.search(r"with integers ([\d.]+) dB from PyTorch", result.stdout)
    assert 25 < float(decibels[1]) < 99
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_pairs_that_cannot_calibrate_are_refused_before_anything_is_traced(
    small_run, tmp_path, folders, pairs, monkeypatch
):
    monkeypatch.setattr(export_module, "_to_onnx", lambda network: pytest.fail("traced"))
    for name, damage, words in (
        ("scene_1", lambda file: file.write_bytes(file.read_bytes()[:200]), r"scene_1\.png"),
        ("scene_0", lambda file: Image.new("L", (64, 47)).save(file), "scene_0 has two sizes: .*64x48, .*64x47; bring"),
    ):
        damage(folders / "vis" / f"{name}.png")
        with pytest.raises(UserError, match=words):
            export_onnx(small_run, tmp_path / "model.onnx", pairs)
    assert not (tmp_path / "model.onnx").exists()
