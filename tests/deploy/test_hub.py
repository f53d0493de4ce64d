"""Networks on the hub: what is downloaded, what is refused and what is published, with a hub on this machine."""

import subprocess
import sys
import threading

import pytest
import torch
import yaml

from timfuse import cli
from timfuse.deploy import list_networks, load, network_list, push_network
from timfuse.deploy.model_card import read_scores
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.operators.hub_networks import parse_hub_name
from timfuse.operators.network_folders import find_network
from timfuse.runtime.errors import UserError

from .fake_hub import FakeHub

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub without networks, and an empty cache."""
    from huggingface_hub import constants

    with FakeHub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
        server.shutdown()


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def network(hub, network_folder):
    """The files of a network that is on the hub as user/net, beside others that nobody needs."""
    files = files_of(network_folder)
    hub.commit("user/net", {**files, "README.md": b"# A card", ".gitattributes": b"", "pictures/limits.png": b"png"})
    return files


def resolved(hub):
    return {path.split("/", 4)[4] for path in hub.asked if "/resolve/" in path}


def test_a_network_of_the_hub_is_the_one_of_its_folder(hub, network, network_folder, monkeypatch, capfd):
    fuser = load("hub:user/net", "cpu")
    images = torch.rand(2, 1, 1, 20, 24)
    assert torch.equal(fuser(*images), load(network_folder, "cpu")(*images))
    commit = hub.repositories["user/net"][0][0]
    assert fuser.network.genotype.provenance["hub"] == f"hub:user/net@{commit}"
    assert find_network("hub:user/net").name == commit
    assert resolved(hub) == {"README.md", "genotype.yaml", "weights.safetensors"}
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(network_list, "HEIGHT", 48)
    ((listed,), _) = list_networks(["hub:user/net"], "cpu")
    assert (listed.name, listed.size) == ("hub:user/net", len(network["weights.safetensors"]))


def test_a_pinned_network_stays_and_needs_no_connection_again(hub, network, tmp_path, write_network, fusion_genotype):
    (commit, _), *_ = hub.repositories["user/net"]
    hub.commit("user/net", files_of(write_network(tmp_path / "newer", fusion_genotype(channels=6))))
    assert load("hub:user/net", "cpu").network.genotype.channels == 6
    assert load(f"hub:user/net@{commit}", "cpu").network.genotype.channels == 4
    asked = len(hub.asked)
    pinned = load(f"hub:user/net@{commit}", "cpu").network.genotype
    assert (pinned.channels, pinned.provenance["hub"]) == (4, f"hub:user/net@{commit}")
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    "file", ["train.py", "weights.pt", "old/model.BIN", "x.pkl", "first_stage/a.pth", "run", "a.npy", "b.onnx.zip"]
)
def test_whatever_may_run_code_is_refused_before_anything_is_downloaded(hub, network, file):
    hub.commit("user/net", {file: b""})
    with pytest.raises(UserError, match=rf"hub:user/net holds {file}, which may run code"):
        load("hub:user/net")
    assert resolved(hub) == set()


def test_a_file_of_another_folder_is_never_written(hub, network, tmp_path):
    hub.commit("user/net", {"../../../genotype.yaml": b"", "other/weights.safetensors": b"", "/genotype.yaml": b""})
    load("hub:user/net", "cpu")
    assert resolved(hub) == {"README.md", "genotype.yaml", "weights.safetensors"}


@pytest.mark.parametrize("revision", ["", f"@{40 * '0'}"])
@pytest.mark.parametrize(
    "name",
    ["", "net", "user/net/more", "us er/net", "../..", "-a/b", "a/.b", "a--b/c", "a/b..c", "a/b.git", 97 * "a" + "/b"],
)
def test_a_malformed_name(hub, name, revision):
    with pytest.raises(UserError, match="is no name on the hub; write hub:user/name"):
        load(f"hub:{name}{revision}")
    assert hub.asked == []


def test_names_as_the_hub_has_them():
    from huggingface_hub.utils import validate_repo_id

    for name in ("a/b", "1-a.B/c_d-e.f", f"{96 * 'a'}/_b_", "a.git/b"):
        validate_repo_id(name)
        assert parse_hub_name(f"hub:{name}@v1--x..y/z") == (name, "v1--x..y/z")
    with pytest.raises(UserError, match="is no name on the hub"):
        parse_hub_name("hub:user/net@")


def test_what_the_hub_does_not_have(hub, network):
    with pytest.raises(UserError, match="no hub:user/other on the hub; check the name"):
        load("hub:user/other")
    with pytest.raises(UserError, match="hub:user/net@v2 is no revision on the hub"):
        load("hub:user/net@v2")
    hub.commit("user/empty", {"README.md": b""})
    with pytest.raises(UserError, match=r"hub:user/empty holds no network of timfuse: it has no genotype\.yaml"):
        load("hub:user/empty")
    hub.commit("user/net", {"weights.safetensors": b"damaged"})
    with pytest.raises(UserError, match="is damaged or not a safetensors file"):
        load("hub:user/net")


def test_without_a_connection_and_without_the_package(monkeypatch, hub):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"^hub:user/net: .*ConnectError.*; check the name and the connection$"):
        load("hub:user/net")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install timfuse\[hub\]"):
        load("hub:user/net")


@pytest.mark.usefixtures("network")
def test_the_command_line(hub, folders, capfd):
    words = ["fuse", "--first", folders / "ir", "--second", folders / "vis", "-o", folders / "out", "-n"]
    for name, code in (("hub:user/net", 0), ("hub:user/other", 2)):
        with pytest.raises(SystemExit) as finished:
            cli.main([*map(str, words), name])
        assert (finished.value.code or 0) == code
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: no hub:user/other on the hub; check the name")
    assert len(list((folders / "out").iterdir())) == 3
    with pytest.raises(SystemExit):
        cli.main(["push", str(folders / "network"), "me/net"])
    commit = hub.repositories["me/net"][-1][0]
    assert capfd.readouterr().out == f"published; load it by hub:me/net@{commit}\n"


def test_what_is_published_is_loaded_again(hub, tmp_path, write_network, fusion_genotype, capfd):
    scores = {"loss": -1.5, "VIF": 0.5, "SCD": None}
    provenance = {
        "timfuse": "0.1.0",
        "stage": "train",
        "seed": 0,
        "init": "/home/somebody/start",
        "data": {"root": ["/home/somebody/roadscene", "~/tno"], "training_pairs": 86, "validation_pairs": 8},
        "steps": 2000,
        "best_step": 1899,
        "metrics": {"best": {"mean": scores, "roadscene": scores, "tno": {**scores, "VIF": 0.7}}},
        "architecture": {"source": "/home/somebody/search"},
    }
    run = write_network(tmp_path / "run", fusion_genotype(provenance=provenance))
    (run / "config.yaml").write_text("loss: {intensity: 1.0, edges: 2.5, smear: 0.0}\n")
    (run / "checkpoint.pt").write_bytes(b"pickled")
    name = push_network(run, "me/first", "apache-2.0")
    (_, (commit, files)) = hub.repositories["me/first"]
    assert name == f"hub:me/first@{commit}"
    assert set(files) == {".gitattributes", "README.md", "genotype.yaml", "weights.safetensors"}
    assert b"somebody" not in b"".join(files.values())
    card = files["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["license"], head["tags"]) == ("apache-2.0", ["image-fusion", "infrared-visible"])
    for words in ("roadscene, tno", "86 training pairs", "2,000 steps", "intensity 1, edges 2.5", "step 1,900"):
        assert words in card
    assert "smear" not in card
    assert read_scores(card) == pytest.approx({"loss": -1.5, "VIF": 0.6})
    again = load(name, "cpu")
    images = torch.rand(2, 1, 1, 20, 24)
    assert torch.equal(again(*images), load(run, "cpu")(*images))
    assert again.network.genotype.provenance["data"]["root"] == ["roadscene", "tno"]
    assert push_network(run, "me/first").startswith("hub:me/first@")
    assert "no licence is granted" in hub.repositories["me/first"][-1][1]["README.md"].decode()
    assert capfd.readouterr() == ("", "")


def test_no_folder_of_this_machine_is_published(hub, tmp_path, write_network, fusion_genotype):
    provenance = {
        "init": "secret/start",
        "start": "secret/start/",
        "genotype": "hub:user/name@v1/final",
        "downstream": {"network": "C:\\secret\\detector", "init": None, "classes": ["car/van"]},
        "images": "../secret/fused",
        "data": {"root": ["secret/a/tno", "secret/b/tno", "/"], "stretch": {"secret/a/tno, first": [0, 9]}},
        "latency": {"device": "Ryzen w/ Radeon, 1 thread"},
        "metrics": {"best": {"mean": {"VIF": 0.5}, "secret/a/tno": {"VIF": 0.4}, "secret/b/tno": {"VIF": 0.6}}},
        "initialisation": {"operators": {"blur": {"source": "\\\\secret\\share\\mine\\blur.py"}}},
    }
    push_network(write_network(tmp_path / "run", fusion_genotype(provenance=provenance)), "me/net")
    files = hub.repositories["me/net"][-1][1]
    assert b"secret" not in b"".join(files.values())
    assert yaml.safe_load(files["genotype.yaml"])["provenance"] == {
        "init": "start",
        "start": "start",
        "genotype": "hub:user/name@v1/final",
        "downstream": {"network": "detector", "init": None, "classes": ["car/van"]},
        "images": "fused",
        "data": {"root": ["tno", "tno", "a folder"], "stretch": {"tno, first": [0, 9]}},
        "latency": {"device": "Ryzen w/ Radeon, 1 thread"},
        "metrics": {"best": {"mean": {"VIF": 0.5}, "tno": {"VIF": 0.4}, "tno 2": {"VIF": 0.6}}},
        "initialisation": {"operators": {"blur": {"source": "blur.py"}}},
    }


def test_a_push_is_the_first_use_of_the_hub_in_a_process():
    program = "from timfuse.operators.hub_networks import without_bars\nwith without_bars(): pass"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_first_stage_and_the_detectors_are_published_too(
    hub, tmp_path, write_network, fusion_genotype, write_guiding_detectors
):
    first_stage = write_network(tmp_path / "run" / "first_stage", fusion_genotype())
    write_guiding_detectors(first_stage)
    cells = tuple(CellGenotype("successive", ("separable_k3",), source) for source in ("first", "second"))
    run = write_network(tmp_path / "run", Genotype("refined", "mri-ct", "refine", 4, cells, merge="concat"))
    again, images = load(push_network(run, "me/refined"), "cpu"), torch.rand(2, 1, 1, 32, 32)
    assert torch.equal(again(*images), load(run, "cpu")(*images))


def test_what_is_not_published(hub, network_folder, tmp_path, write_network, fusion_genotype):
    own = write_network(tmp_path / "own", fusion_genotype(provenance={"operators": {"blur": "my_operators.py"}}))
    (network_folder / "weights.safetensors").write_bytes(b"damaged")
    for run, name, words in (
        ("ivif", "me/ivif", "ivif comes with timfuse; push a run"),
        (own, "me/own", "has operators of your own"),
        (network_folder, "me/damaged", "is damaged"),
        (network_folder, "first", "'hub:first' is no name on the hub"),
        (network_folder, "me/first@v1", "names a revision, which a push makes; write me/first"),
        ("nothing", "me/first", "no network 'nothing'"),
    ):
        with pytest.raises(UserError, match=words):
            push_network(run, name)
    assert hub.asked == []
