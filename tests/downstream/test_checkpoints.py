import json
import sys
import time

import pytest
import torch

from timfuse.downstream.transformers_network import TransformersNetwork, segformer_tiny
from timfuse.runtime.errors import UserError

pytest.importorskip("transformers")
pytest.importorskip("scipy")

CLASSES = ("background", "car")


@pytest.fixture
def saved(tmp_path):
    segformer_tiny(CLASSES).model.save_pretrained(tmp_path)
    return tmp_path


def edit(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def refused(match, source, task="segmentation"):
    with pytest.raises(UserError, match=match) as caught:
        TransformersNetwork.from_pretrained(task, source, CLASSES)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_a_network_is_read_without_a_word(saved, capfd):
    segmenter = TransformersNetwork.from_pretrained("segmentation", saved, CLASSES)
    assert segmenter.classes == CLASSES
    assert segmenter.fresh_classes == ()
    assert segmenter.model.dtype == torch.float32
    assert segmenter.inputs.specification() == {"mean": [pytest.approx(0.449)], "std": [pytest.approx(0.226)]}
    assert capfd.readouterr() == ("", "")


def test_half_precision_on_disk_is_single_in_use(saved):
    segformer_tiny(CLASSES).model.half().save_pretrained(saved)
    segmenter = TransformersNetwork.from_pretrained("segmentation", saved, CLASSES)
    assert {weight.dtype for weight in segmenter.parameters()} == {torch.float32}
    assert {
        weight.dtype for weight in TransformersNetwork.from_specification(segmenter.specification()).parameters()
    } == {torch.float32}


@pytest.mark.parametrize("source", ["./no-such-folder", "a/b/c", "/no/such", "", "..", "C:\\models"])
def test_no_folder_and_no_name(source):
    if source in ("", ".."):
        refused("there is no config.json", source)
    else:
        refused("no folder .*; check the path", source)


def test_without_a_connection_the_answer_comes_soon(monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(url, timeout):
        assert url.endswith("/nobody/nothing/resolve/main/config.json")
        assert timeout <= 5
        raise OSError("no route to\nhost.")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.perf_counter()
    refused(r"nobody/nothing is not a folder and cannot be downloaded \(no route to\); check", "nobody/nothing")
    assert time.perf_counter() - start < 5


def test_what_was_downloaded_before_needs_no_connection(monkeypatch, saved):
    import huggingface_hub

    def snapshot(name, *, allow_patterns, local_files_only):
        assert (name, local_files_only) == ("somebody/something", True)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    segmenter = TransformersNetwork.from_pretrained("segmentation", "somebody/something", CLASSES)
    assert segmenter.specification()["name"] == "somebody/something"


def test_folders_that_hold_no_network(saved):
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    refused("has no model.safetensors, and weights in other formats can run code", saved)
    (saved / "config.json").unlink()
    refused("holds no network of transformers: there is no config.json", saved)


def test_a_network_of_another_kind(saved):
    refused("is a network of the kind segformer, which does not serve this task; choose", saved, "detection")
    edit(saved, model_type="resnet")
    refused("of the kind resnet.*: beit, .*segformer", saved)
    (saved / "config.json").write_text("{}")
    refused("of the kind None", saved)


def test_damaged_files(saved):
    weights = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused(r"cannot load the weights in .*; get the network again", saved)
    (saved / "config.json").write_text("{")
    refused(r"config.json is damaged; get the network again", saved)


def test_weights_of_another_network(saved):
    edit(saved, decoder_hidden_size=32)
    refused("cannot load the weights", saved)
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(3)}, saved / "model.safetensors", metadata={"format": "pt"})
    refused("belong to another network", saved)


def test_settings_that_do_not_fit(saved):
    edit(saved, depths="many")
    refused("has a configuration that does not fit", saved)


def test_code_beside_a_network_is_not_run(saved):
    (saved / "own.py").write_text("raise SystemExit('run')")
    classes = {"AutoConfig": "own.Config", "AutoModelForSemanticSegmentation": "own.Network"}
    edit(saved, auto_map=classes, _attn_implementation="somebody/attention", attn_implementation="somebody/attention")
    segmenter = TransformersNetwork.from_pretrained("segmentation", saved, ("background", "lamp"))
    assert segmenter.fresh_classes == ("lamp",)
    assert type(segmenter.model).__module__.startswith("transformers.")
    assert segmenter.model.config._attn_implementation == "eager"
    specification = segmenter.specification()
    assert "auto_map" not in specification["config"]
    specification["config"]["auto_map"] = classes
    assert type(TransformersNetwork.from_specification(specification).model).__module__.startswith("transformers.")


def test_a_backbone_of_a_package_that_is_missing(monkeypatch, saved):
    monkeypatch.setitem(sys.modules, "timm", None)
    (saved / "config.json").write_text(
        json.dumps({"model_type": "detr", "backbone": "resnet50", "use_timm_backbone": True})
    )
    refused("this detr network needs more packages .*timm.*; install them or choose another", saved, "detection")


@pytest.mark.parametrize("module", ["transformers", "scipy"])
def test_a_missing_package_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"needs the package {module}; pip install 'timfuse\[tasks\]'"):
        segformer_tiny(CLASSES)


@pytest.mark.parametrize(
    "change", [{"kind": "other"}, {"config": None}, {"config": {}}, {"inputs": {}}, {"inputs": None}]
)
def test_a_specification_that_is_not_one(change):
    with pytest.raises(UserError, match=";"):
        TransformersNetwork.from_specification({**segformer_tiny(CLASSES).specification(), **change})
