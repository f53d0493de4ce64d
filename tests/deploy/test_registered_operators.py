"""A network of operators of one's own in use: fused whole and in tiles, and exported."""

import pytest
import torch
from torch import nn

from timfuse.deploy import export_onnx, load
from timfuse.deploy.fuser import Fuser
from timfuse.deploy.trained_network import load_network
from timfuse.genotypes import OPERATOR_KINDS, CellGenotype, Genotype, save_genotype
from timfuse.operators import build_network, register_operator
from timfuse.operators.normalisation import build_norm
from timfuse.operators.pooling import GlobalMean
from timfuse.runtime.errors import UserError
from timfuse.runtime.weights import save_weights


class Gated(nn.Module):
    """A gate by the mean of the whole image, then a sequence that rewriting would like to merge."""

    def __init__(self, channels, kernel, norm):
        super().__init__()
        self.mean = GlobalMean()
        self.sequence = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, padding_mode="reflect", groups=channels),
            nn.Conv2d(channels, channels, 1, bias=False),
            build_norm(norm, channels),
        )

    def forward(self, x):
        return self.sequence(x * self.mean(x).sigmoid())


@pytest.fixture
def run(tmp_path, registrations):
    register_operator("gated", kernels=(3,), radius=1)(Gated)
    cells = (CellGenotype("successive", ("gated_k3", "residual_k3_d1")),)
    genotype = Genotype("own", "mri-ct", "fusion", 4, cells, norm="group", head="envelope")
    torch.manual_seed(0)
    save_weights(tmp_path / "run" / "weights.safetensors", build_network(genotype).state_dict(), {})
    save_genotype(genotype, tmp_path / "run" / "genotype.yaml")
    return tmp_path / "run"


def test_fusing_in_tiles(run):
    network = load_network(run)
    first, second = torch.rand(2, 1, 1, 150, 170)
    whole = load(run, "cpu")(first, second)
    tiled = Fuser(network, torch.device("cpu"), pass_bytes=1, pass_pixels=64 * 64)(first, second)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_exporting(run, monkeypatch):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra export is not installed")
    monkeypatch.setattr("timfuse.deploy.export.CHECKED_SHAPES", ((1, 37, 53), (2, 24, 32)))
    monkeypatch.setattr("timfuse.deploy.export.TIMED_SHAPE", (1, 24, 32))
    assert export_onnx(run, run.parent / "own.onnx").difference < 1e-4


def test_a_network_brings_no_code_along(run, monkeypatch):
    monkeypatch.delitem(OPERATOR_KINDS, "gated")
    with pytest.raises(UserError, match=r"genotype\.yaml: .* an operator of your own needs --operators FILE"):
        load(run)
