"""Networks by name and by folder, and one line for everything that can be wrong with them."""

import shutil
from dataclasses import replace

import pytest
import torch

from timfuse.deploy import load_network, shipped_names
from timfuse.genotypes import CellGenotype, Genotype, load_genotype
from timfuse.operators import build_network, count_parameters
from timfuse.operators import network_folders as shipped_networks
from timfuse.runtime.errors import UserError
from timfuse.runtime.weights import load_into


@pytest.fixture
def shipped(tmp_path, monkeypatch, write_network, fusion_genotype):
    """The folder of shipped networks, with two small ones in it."""
    folder = tmp_path / "networks"
    write_network(folder / "ivif", fusion_genotype())
    write_network(folder / "ivif-fast", fusion_genotype(stem="half"))
    (folder / "README.md").write_text("not a network")
    monkeypatch.setattr(shipped_networks, "SHIPPED", folder)
    return folder


def refine(merge="gated"):
    cells = tuple(CellGenotype("successive", ("dilated_k3_d1",), source) for source in ("first", "second"))
    return Genotype("refine", "infrared-visible", "refine", 4, cells, merge=merge)


def test_names_are_those_of_the_folders(shipped):
    assert shipped_names() == ("ivif", "ivif-fast")
    shutil.rmtree(shipped)
    assert shipped_names() == ()


def test_a_name_goes_before_a_folder_of_that_name(shipped, tmp_path, monkeypatch, write_network, fusion_genotype):
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "ivif", fusion_genotype(channels=2))
    assert load_network("ivif").genotype.channels == 4
    assert load_network("./ivif").genotype.channels == 2
    assert load_network(tmp_path / "ivif").genotype.channels == 2


@torch.no_grad()
def test_a_folder_of_a_fusion_network(network_folder):
    network = load_network(network_folder)
    plain = build_network(load_genotype(network_folder)).eval()
    load_into(plain, network_folder / "weights.safetensors")
    images = torch.rand(2, 1, 1, 21, 18)
    torch.testing.assert_close(network(*images), plain(*images), rtol=1e-5, atol=1e-5)
    assert (network.reach, network.multiple) == (9, 1)


@torch.no_grad()
def test_a_refine_network_runs_after_its_first_stage(tmp_path, write_network, fusion_genotype):
    folder = write_network(tmp_path / "refine", refine(), seed=1)
    write_network(folder / "first_stage", fusion_genotype(stem="half"))
    network = load_network(folder)
    first_stage, second_stage = (build_network(load_genotype(path)).eval() for path in (folder / "first_stage", folder))
    load_into(first_stage, folder / "first_stage" / "weights.safetensors")
    load_into(second_stage, folder / "weights.safetensors")
    images = torch.rand(2, 1, 1, 21, 18)
    _, _, expected = second_stage(*images, first_stage(*images))
    torch.testing.assert_close(network(*images), expected, rtol=1e-5, atol=1e-5)
    assert (network.reach, network.multiple) == (5 + 19, 2)


@pytest.mark.parametrize("stem", ["full", "half"])
@torch.no_grad()
def test_the_attention_of_detectors_modulates_a_network(
    tmp_path, write_network, write_guiding_detectors, fusion_genotype, stem
):
    folder = write_network(tmp_path / "network", fusion_genotype(stem=stem))
    plain = load_network(folder)
    detectors = write_guiding_detectors(folder)
    network = load_network(folder)
    own = build_network(load_genotype(folder)).eval()
    load_into(own, folder / "weights.safetensors")
    images = torch.rand(2, 1, 1, 37, 50)
    attention = detectors.attention(*images)
    assert attention.max() - attention.min() > 0.1
    torch.testing.assert_close(network(*images), own(*images, attention=attention), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(network(*images), plain(*images), rtol=1e-2, atol=1e-2)
    assert (network.reach, network.multiple) == (plain.reach + 16, 32)


def test_the_first_stage_of_a_refine_network_may_be_modulated(
    tmp_path, write_network, write_guiding_detectors, fusion_genotype
):
    folder = write_network(tmp_path / "refine", refine(), seed=1)
    write_network(folder / "first_stage", fusion_genotype())
    write_guiding_detectors(folder / "first_stage")
    network = load_network(folder)
    assert (network.reach, network.multiple) == (5 + 9 + 16, 32)
    write_guiding_detectors(folder)
    with pytest.raises(UserError, match=r"refine network, which no attention modulates; remove .*detectors"):
        load_network(folder)


def test_detectors_that_are_not_whole(network_folder, write_guiding_detectors):
    write_guiding_detectors(network_folder)
    (network_folder / "detectors" / "specification.yaml").unlink()
    with pytest.raises(UserError, match=r"no guiding detectors: .*specification\.yaml is missing"):
        load_network(network_folder)


@torch.no_grad()
def test_a_folder_of_a_detfusion_network(tmp_path, write_network):
    folder = write_network(tmp_path / "network", replace(load_genotype("detfusion"), channels=2))
    network = load_network(folder)
    assert network(*torch.rand(2, 1, 1, 21, 18)).shape == (1, 1, 21, 18)
    assert (network.reach, network.multiple) == (8, 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ivfi", ["no network 'ivfi' (did you mean 'ivif'?)", "folder of a run", "one of ivif, ivif-fast"]),
        ("gone/run", ["no network 'gone/run'", "ivif, ivif-fast"]),
    ],
)
def test_an_unknown_name(shipped, name, words):
    with pytest.raises(UserError) as caught:
        load_network(name)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_folders_that_are_not_whole(tmp_path, network_folder, write_network, fusion_genotype):
    with pytest.raises(UserError, match=r"has no genotype\.yaml"):
        load_network(tmp_path)
    other = write_network(tmp_path / "other", fusion_genotype(channels=6))
    shutil.copy(network_folder / "genotype.yaml", other)
    with pytest.raises(UserError, match="belong to another architecture"):
        load_network(other)
    (network_folder / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights file .*weights\.safetensors"):
        load_network(network_folder)
    with pytest.raises(UserError, match=r"refine network without first stage; put genotype.*first_stage"):
        load_network(write_network(tmp_path / "refine", refine()))


def test_what_is_shipped_is_small_and_described():
    for name in shipped_names():
        folder = shipped_networks.SHIPPED / name
        assert {path.name for path in folder.iterdir()} == {
            "genotype.yaml",
            "weights.safetensors",
            "README.md",
            "limits.png",
        }
        assert (folder / "weights.safetensors").stat().st_size < 1_000_000
        assert count_parameters(build_network(load_genotype(folder))) <= 250_000
        load_network(name)
