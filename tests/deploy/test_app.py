"""The page of `timfuse app`: what it fuses, scores, refuses and sends, through its server on a free port."""

import base64
import contextlib
import io
import json
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import tifffile
from PIL import Image

from timfuse.data import make_exposures, make_scene, match_pairs, write_pixels
from timfuse.deploy import evaluate, load
from timfuse.deploy.app import App, fuse_and_score
from timfuse.runtime.errors import UserError


@pytest.fixture(scope="module")
def fuser():
    return load("ivif-nano", "cpu")


@pytest.fixture(scope="module")
def scene():
    return make_scene(0, height=96, width=128)


@pytest.fixture(scope="module")
def app():
    with App([], port=0) as app:
        thread = threading.Thread(target=app.serve_forever)
        thread.start()
        yield app
        app.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def ask(app):
    """A function that sends the page's JSON and returns the answer."""

    def call(path, **request):
        with urllib.request.urlopen(f"{app.address}/{path}", json.dumps(request).encode(), timeout=30) as response:
            return json.load(response)

    return call


def as_file(pixels, name):
    """A file as the page sends it."""
    content = io.BytesIO()
    if name.endswith(".tif"):
        tifffile.imwrite(content, pixels)
    else:
        Image.fromarray(pixels).save(content, "PNG")
    return {"name": name, "data": base64.b64encode(content.getvalue()).decode()}


def pixels_of(file):
    """The pixels of a file that the page gets."""
    content = io.BytesIO(base64.b64decode(file["data"]))
    return tifffile.imread(content) if file["name"].endswith(".tif") else np.array(Image.open(content))


def test_the_scores_are_those_of_the_evaluation(fuser, scene, tmp_path):
    done = fuse_and_score(fuser, scene.first, scene.second)
    assert np.array_equal(done.fused, fuser(scene.first, scene.second))
    for name, pixels in (("first", scene.first), ("second", scene.second), ("fused", done.fused)):
        write_pixels(tmp_path / f"{name}.png", pixels)
    pairs = match_pairs(tmp_path / "first.png", tmp_path / "second.png")
    expected = evaluate(pairs, {"fused": [tmp_path / "fused.png"]}, done.scores.metrics)
    assert done.scores.metrics == ("VIF", "Qabf", "SCD", "SSIM", "MEF-SSIM", "smear")
    assert np.array_equal(done.scores.values, expected.values[:2])
    assert expected.methods[:2] == done.scores.methods
    assert done.milliseconds > 0
    assert done.warning == ""


def test_grey_images_that_were_saved_in_colour_become_grey(fuser, scene):
    coloured = np.repeat(scene.second[..., None], 3, axis=2)
    assert np.array_equal(
        fuse_and_score(fuser, scene.first, coloured).fused, fuse_and_score(fuser, scene.first, scene.second).fused
    )


def test_metrics_that_need_larger_images_are_left_out(fuser, scene):
    metrics = fuse_and_score(fuser, scene.first[:20, :20], scene.second[:20, :20]).scores.metrics
    assert "VIF" not in metrics
    assert "Qabf" in metrics


def test_a_shift_is_told(fuser):
    scene = make_scene(3, height=300, width=420)
    warning = fuse_and_score(fuser, scene.first[:, 9:], scene.second[:, :-9]).warning
    assert re.search(r"a shift of (8|9|10) px \(in the pair looked at\)", warning)


def test_the_page_offers_the_networks_and_loads_nothing(app):
    with urllib.request.urlopen(app.address, timeout=30) as response:
        page = response.read().decode()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*)</script>', page)[1])
    assert {"name": "mri-pet", "task": "mri-pet", "words": ["MRI", "PET"]} in data["networks"]
    assert "default-src 'none'" in page
    assert "//" not in re.sub(r"  // .*", "", page)  # no address of another machine


@pytest.mark.parametrize(("task", "network"), [("infrared-visible", "ivif-nano"), ("mri-pet", "mri-pet")])
def test_an_example_is_fused(ask, task, network):
    files = ask("example", task=task, number=1)["files"]
    answer = ask("fuse", network=network, files=files)
    assert np.array_equal(pixels_of(answer["file"]), load(network, "cpu")(*map(pixels_of, files)))
    assert answer["file"]["name"] == files[0]["name"].replace(".png", "-fused.png")
    assert answer["size"] == [640, 480]
    assert all(address.startswith("data:image/jpeg;base64,") for address in answer["images"])
    assert answer["scores"][0][0] == "VIF↑"
    assert answer["scores"][0][3].startswith("visual information fidelity: ")
    assert ask("example", task=task, number=2)["files"] != files


def test_the_fused_image_keeps_its_depth(ask):
    under, over = (image.astype(np.uint16) * 257 for image in make_exposures(0, height=64, width=64))
    for first, second, name in ((under, over, "under-fused.tif"), (under[..., 1], over[..., 1], "under-fused.png")):
        files = [as_file(first, "under.tif"), as_file(second, "over.tif")]
        file = ask("fuse", network="multi-exposure", files=files)["file"]
        assert file["name"] == name
        assert np.array_equal(pixels_of(file), load("multi-exposure", "cpu")(first, second))


def test_raw_counts_are_stretched_and_this_is_told(ask, scene):
    raw = 7000 + scene.first.astype(np.uint16)
    files = [as_file(raw, "raw.tif"), as_file(scene.second, "second.png")]
    assert re.match(
        r"the first image was stretched: 7\d+ is black", ask("fuse", network="ivif-nano", files=files)["notes"][0]
    )


def test_sources_that_look_swapped_are_told(ask, scene):
    files = [
        as_file(np.stack([scene.second, scene.second, scene.first], axis=2), "vis.png"),
        as_file(scene.first, "ir.png"),
    ]
    assert "wrong fields" in "".join(ask("fuse", network="ivif-nano", files=files)["notes"])
    assert ask("fuse", network="ivif-nano", files=files[::-1])["notes"] == []


def test_mistakes_are_told_in_one_line(ask, scene):
    first, second = as_file(scene.first, "ir.png"), as_file(scene.second, "vis.png")
    broken = {"name": "../ir?.jpg", "data": base64.b64encode(b"no image").decode()}
    for files, line in (
        ([first, None], "the second image (visible) is missing; drop it into its field"),
        ([None, second], "the first image (infrared) is missing; drop it into its field"),
        ([first, as_file(scene.second[:50], "vis.png")], "first is 128x96, second 128x50 (width x height); bring"),
        ([broken, second], "first/_ir_.jpg is empty, damaged or no image at all; replace or remove it"),
        ([first, {"name": "..", "data": ""}], "second/image is empty, damaged or no image at all"),
    ):
        answer = ask("fuse", network="ivif-nano", files=files)
        assert answer["error"].startswith(line)
        assert "\n" not in answer["error"]
    assert ask("example", task="x-ray", number=0)["error"].startswith("task must be one of infrared-visible, ")


def test_names_from_the_browser_are_safe(ask, scene):
    for name in ("a\0b:alpha", "*.png", "/etc/passwd", "é" * 500 + ".png", "\ud800", ""):
        files = [as_file(scene.first, name), as_file(scene.second, name)]
        name = ask("fuse", network="ivif-nano", files=files)["file"]["name"]
        assert name.endswith("-fused.png")
        assert "/" not in name


def test_other_addresses_do_not_exist(app):
    for content in (None, b"{}"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{app.address}/elsewhere", content, timeout=30)


def test_what_cannot_be_served_is_told(app, tmp_path):
    with pytest.raises(UserError, match=rf"the port {app.server_port} cannot be used \(Address already in use\)"):
        App([], app.server_port)
    with pytest.raises(UserError, match="no network"):
        App([str(tmp_path / "missing")], 0)


def test_a_request_to_another_name_is_refused(app):
    for host, allowed in (("localhost:1", True), ("evil.example", False)):
        request = urllib.request.Request(app.address, headers={"Host": host})
        refusal = contextlib.nullcontext() if allowed else pytest.raises(urllib.error.HTTPError, match="403")
        with refusal, urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 200
