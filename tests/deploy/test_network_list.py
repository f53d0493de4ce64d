"""The list of networks: what is found where, and its figures."""

import pytest

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
