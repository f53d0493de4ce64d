"""The list of networks: what is found where, and its figures."""

import math
import re

import pytest
from typer.testing import CliRunner

from timfuse.cli import app
from timfuse.deploy import list_networks, network_list, shipped_names
from timfuse.deploy.model_card import read_scores
from timfuse.genotypes import load_genotype, save_genotype
from timfuse.operators.network_folders import SHIPPED
from timfuse.runtime.errors import UserError


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(network_list, "HEIGHT", 48)
    monkeypatch.setattr(network_list, "WIDTH", 64)


def test_the_shipped_networks_have_the_scores_of_their_cards():
    networks, failed = list_networks([])
    assert failed == []
    assert tuple(network.name for network in networks) == shipped_names()
    ivif, *_ = networks
    assert (ivif.task, ivif.parameters, ivif.size) == ("infrared-visible", 186_423, 751_156)
    # Of TNO, RoadScene and MSRS, without the rows about parts of them.
    assert ivif.scores["VIF"] == pytest.approx((0.732 + 0.769 + 1.004) / 3)
    assert all({"VIF", "Qabf", "MEF-SSIM"} <= set(network.scores) for network in networks)
    assert all(network.milliseconds > 0 for network in networks)


@pytest.mark.parametrize("card", ["", "# Mine", "## Metrics\n\nnone\n\n## Other\n\n| a | b |\n|---|---|\n| c | 1 |\n"])
def test_a_card_without_scores(card):
    assert read_scores(card) == {}


@pytest.mark.parametrize(
    ("rows", "scores"),
    [
        ("| set | VIF | SCD |\n|---|---|---|\n| a | n/a | 0 |\n| b | 0.5 | 1 |\n", {"SCD": 0.5}),
        ("| set | VIF | SCD |\n|---|---|---|\n| a | 0.5 |\n| b | 0.7 | 1 | 2 |\n", {"VIF": 0.6}),
        ("| set | VIF |\n|---|---|\n| a | 1e308 |\n| b | 1e308 |\n| c | nan |\n", {}),
        ("| set | VIF |\n", {}),
        ("||\n||\n||\n", {}),
    ],
)
def test_a_card_with_something_else_than_numbers(rows, scores):
    assert read_scores(f"## Metrics\n\n{rows}") == pytest.approx(scores)


@pytest.mark.parametrize(
    "metrics",
    [5, "best", {"best": 1}, {"best": {"mean": [0.5]}}]
    + [{"best": {"mean": {"VIF": value}}} for value in ("x", [], math.inf, math.nan)],
)
def test_metadata_of_others_does_not_end_the_list(metrics, tmp_path, write_network, fusion_genotype, monkeypatch):
    monkeypatch.setattr(network_list, "ROUNDS", 1)
    run = write_network(tmp_path / "foreign", fusion_genotype(provenance={"metrics": metrics}))
    (run / "README.md").write_bytes(b"\xff## Metrics")
    ((network,), failed) = list_networks([str(run)], "cpu")
    assert (network.scores, failed) == ({}, [])


def test_no_text_of_others_controls_the_terminal(tmp_path, write_network, fusion_genotype):
    mean = {"VIF": "\x1b[31m", "\x1b[2J": 1, "Qabf": 0.5}
    write_network(tmp_path / "\x1b[1m", fusion_genotype(provenance={"metrics": {"best": {"mean": mean}}}))
    write_network(tmp_path / "\x1b[2m", fusion_genotype())
    (tmp_path / "\x1b[2m" / "genotype.yaml").write_text('name: "\\e[31m"\ntask: "\\e[2J"\n')
    result = CliRunner().invoke(app, ["networks", str(tmp_path)], color=True)
    assert "\x1b" not in result.output
    assert re.search(r"x1b\[1m +infrared-visible .* - +0\.500 +-", result.stdout), result.output
    assert "error: " in result.stderr


def test_networks_in_folders(tmp_path, write_network, fusion_genotype):
    genotype = fusion_genotype(provenance={"metrics": {"best": {"mean": {"VIF": 0.5, "SCD": None}}}})
    write_network(tmp_path / "runs" / "one", genotype)
    write_network(tmp_path / "runs" / "ivif", fusion_genotype("non_local_k3", task="mri-ct"))
    write_network(tmp_path / "runs" / "damaged", genotype)
    (tmp_path / "runs" / "damaged" / "weights.safetensors").write_bytes(b"")
    (tmp_path / "runs" / "pictures").mkdir()
    runs = str(tmp_path / "runs")
    networks, failed = list_networks([runs, f"{runs}/one", "ivif-nano"], "cpu")
    found = [(network.name, network.task, network.milliseconds is None) for network in networks]
    assert found == [
        (f"{runs}/ivif", "mri-ct", True),
        (f"{runs}/one", "infrared-visible", False),
        ("ivif-nano", "infrared-visible", False),
    ]
    assert [network.scores for network in networks[:2]] == [{}, {"VIF": 0.5}]
    (line,) = failed
    assert line.startswith(f"{runs}/damaged/weights.safetensors is damaged")


def test_a_folder_here_is_not_taken_for_a_shipped_network(tmp_path, monkeypatch, write_network, fusion_genotype):
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "ivif", fusion_genotype())
    ((network,), _) = list_networks(["."], "cpu")
    assert network.name == "./ivif"
    assert network.parameters < 10_000


def test_a_folder_without_networks(tmp_path):
    save_genotype(load_genotype(SHIPPED / "ivif"), tmp_path / "only" / "genotype.yaml")
    with pytest.raises(UserError, match="holds no network; name a run, or a folder of runs"):
        list_networks([str(tmp_path)])
