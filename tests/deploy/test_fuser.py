"""Fusing in memory: every kind of image, colour, tiles, and one line for every kind of mistake."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import timfuse
from timfuse.deploy import Fuser, load, load_network
from timfuse.runtime.errors import UserError

LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture
def fuser(network_folder):
    return load(network_folder, "cpu")


def array(shape, dtype, seed=0):
    values = np.random.default_rng(seed).random(shape)
    return (values * (1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max)).astype(dtype)


def unit(pixels):
    return pixels / (1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max)


def luma(pixels):
    return unit(pixels) if pixels.ndim == 2 else unit(pixels) @ LUMA


@torch.no_grad()
def expected_luma(fuser, first, second):
    sources = [torch.from_numpy(luma(source)).float()[None, None] for source in (first, second)]
    return fuser.network(*sources)[0, 0].clamp(0, 1).double().numpy()


@pytest.mark.parametrize(
    ("dtypes", "result"),
    [
        (("uint8", "uint8"), "uint8"),
        (("uint16", "uint16"), "uint16"),
        (("uint16", "uint8"), "uint8"),
        (("uint8", "uint16"), "uint8"),
        (("float32", "float32"), "float32"),
        (("float64", "float64"), "float64"),
    ],
)
@pytest.mark.parametrize("colours", [(False, False), (False, True), (True, False), (True, True)])
def test_arrays(fuser, dtypes, result, colours):
    first, second = (
        array((19, 22, 3) if colour else (19, 22), dtype, seed)
        for seed, (colour, dtype) in enumerate(zip(colours, dtypes, strict=True))
    )
    copies = first.copy(), second.copy()
    fused = fuser(first, second)
    assert fused.dtype == result
    new = expected_luma(fuser, first, second)
    if colours[1]:
        expected = (unit(second) + (new - luma(second))[..., None]).clip(0, 1)
    else:  # false colours of the first source are not kept
        expected = np.stack([new] * 3, axis=-1) if colours[0] else new
    assert fused.shape == expected.shape
    step = {"uint8": 1 / 255, "uint16": 1 / 65535}.get(result, 0)
    assert np.abs(unit(fused) - expected).max() <= step / 2 + 1e-5
    for source, copy in zip((first, second), copies, strict=True):
        np.testing.assert_array_equal(source, copy)


def test_the_colour_of_the_other_source_is_an_option():
    first, second = array((19, 22, 3), "uint8"), array((19, 22), "uint8", 1)
    fuser = load("ivif-fast", "cpu", colour="first")
    fused = fuser(first, second)
    new = expected_luma(fuser, first, second)
    expected = (unit(first) + (new - luma(first))[..., None]).clip(0, 1)
    assert np.abs(unit(fused) - expected).max() <= 0.5 / 255 + 1e-5
    with pytest.raises(UserError, match="colour must be one of first, second, both, not 'third'"):
        load("ivif-fast", "cpu", colour="third")


def test_colour_keeps_its_chroma(fuser):
    first, second = array((16, 16), "float64"), 0.3 + 0.4 * array((16, 16, 3), "float64", 1)
    fused = fuser(first, second)
    inside = ((fused > 0) & (fused < 1)).all(-1)
    assert inside.any()
    for pixels in (second, fused):
        pixels -= luma(pixels)[..., None]
    np.testing.assert_allclose(fused[inside], second[inside], atol=1e-6)


@pytest.mark.parametrize("view", [lambda x: x[..., ::-1], lambda x: x[::-1], lambda x: x[:, ::-2], np.asfortranarray])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_views_in_any_order_are_as_good_as_copies(fuser, view, dtype):
    first, second = view(array((20, 24, 3), dtype)), view(array((20, 24, 3), dtype, seed=1))  # RGB from OpenCV's BGR
    assert np.array_equal(fuser(first, second), fuser(first.copy(), second.copy()))


def test_grey_saved_in_colour_stays_grey(fuser):
    first, second = array((9, 12), "uint8"), array((9, 12), "uint8", 1)
    fused = fuser(first, np.repeat(second[..., None], 3, axis=-1))
    assert fused.shape == (9, 12, 3)
    np.testing.assert_array_equal(fused, np.repeat(fuser(first, second)[..., None], 3, axis=-1))


def test_the_task_decides_about_colour(tmp_path, write_network, fusion_genotype):
    fuser = load(write_network(tmp_path / "network", fusion_genotype(task="multi-exposure")), "cpu")
    first, second = array((9, 12, 3), "float32"), array((9, 12, 3), "float32", 1)
    new = expected_luma(fuser, first, second)
    shifts = [unit(source) + (new - luma(source))[..., None] for source in (first, second)]
    fused = fuser(first, second)
    assert all(np.abs(fused - shift.clip(0, 1)).max() > 0.01 for shift in shifts)


def test_a_task_of_the_users_own_names_the_source_of_its_colour(tmp_path, write_network, fusion_genotype):
    own = {"task": "xray-neutron", "sources": ("X-ray", "neutron")}
    first, second = array((9, 12, 3), "float32"), array((9, 12, 3), "float32", 1)
    for colour, source in (("first", first), ("second", second), (None, second)):
        fuser = load(write_network(tmp_path / str(colour), fusion_genotype(**own, colour=colour)), "cpu")
        new = expected_luma(fuser, first, second)
        expected = (unit(source) + (new - luma(source))[..., None]).clip(0, 1)
        np.testing.assert_allclose(fuser(first, second), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("modes", "result"),
    [
        (("L", "L"), "L"),
        (("L", "RGB"), "RGB"),
        (("RGB", "RGBA"), "RGB"),
        (("1", "P"), "RGB"),
        (("I;16", "I;16"), "I;16"),
        (("I;16", "L"), "L"),
    ],
)
def test_pillow_images(fuser, modes, result):
    arrays = [array((14, 17), "uint16") if mode == "I;16" else array((14, 17, 3), "uint8") for mode in modes]
    images = [Image.fromarray(pixels) for pixels in arrays]
    images = [image if image.mode == mode else image.convert(mode) for image, mode in zip(images, modes, strict=True)]
    fused = fuser(*images)
    assert isinstance(fused, Image.Image)
    assert (fused.mode, fused.size) == (result, (17, 14))
    plain = [
        image if image.mode.startswith("I") else image.convert("L" if image.mode in "1L" else "RGB") for image in images
    ]
    np.testing.assert_array_equal(np.asarray(fused), fuser(*map(np.array, plain)))


@pytest.mark.parametrize("shape", [(2, 1, 13, 18), (1, 1, 13, 18), (1, 13, 18), (13, 18)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_tensors(fuser, shape, dtype):
    first, second = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (0, 1))
    fused = fuser(first, second)
    assert (fused.shape, fused.dtype) == (first.shape, dtype)
    with torch.no_grad():
        expected = fuser.network(*(source.float().reshape(-1, 1, 13, 18) for source in (first, second))).clamp(0, 1)
    torch.testing.assert_close(fused.reshape(expected.shape), expected.to(dtype), rtol=1e-5, atol=1e-5)


def test_a_fused_tensor_can_be_learned_from(fuser):
    first = torch.rand(1, 1, 12, 12, requires_grad=True)
    weight = torch.ones(1, requires_grad=True)
    (fuser(first, first) * weight).sum().backward()
    assert weight.grad is not None
    assert first.grad is None


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (5, 41)])
def test_any_size(fuser, size):
    assert fuser(array(size, "uint8"), array((*size, 3), "uint8", 1)).shape == (*size, 3)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (
            np.zeros((4, 4), "uint8"),
            torch.zeros(4, 4),
            "first is a ndarray, second a Tensor; give both as numpy arrays",
        ),
        ([[0.0]], [[0.0]], "first is a list, second a list"),
        (np.zeros((4, 4), "uint8"), np.zeros((4, 5), "uint8"), "first is 4x4, second 5x4 (width x height); bring both"),
        (np.zeros((4, 4), "uint8"), np.zeros((4, 4)), "first holds uint8, second float64; give both as integers or"),
        (
            np.zeros((4, 4), "int32"),
            np.zeros((4, 4), "int32"),
            "first holds int32; give uint8, uint16, or floating-point",
        ),
        (np.zeros((4, 4), bool), np.zeros((4, 4), bool), "first holds bool; give uint8"),
        (
            np.zeros((4, 4, 4), "uint8"),
            np.zeros((4, 4), "uint8"),
            "first has the shape (4, 4, 4); give (H, W) or (H, W, 3)",
        ),
        (np.zeros((0, 4), "uint8"), np.zeros((0, 4), "uint8"), "first is empty: its shape is (0, 4)"),
        (np.zeros((4, 4)), np.full((4, 4), np.nan), "second holds values that are not finite"),
        (np.full((4, 4), np.inf), np.zeros((4, 4)), "first holds values that are not finite"),
        (
            np.zeros((4, 4)),
            np.full((4, 4), 255.0),
            "second ranges from 255 to 255; scale floating-point images to [0, 1]",
        ),
        (torch.zeros(4, 4).byte(), torch.zeros(4, 4), "first holds torch.uint8; give floating-point in [0, 1]"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), "first has the shape (1, 3, 4, 4); give luma: (N, 1, H, W)"),
        (torch.zeros(4), torch.zeros(4), "first has the shape (4,); give luma"),
        (torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4), "first is empty"),
        (
            torch.zeros(1, 4, 4),
            torch.zeros(4, 4),
            "first has the shape (1, 4, 4), second (4, 4); give both the same shape",
        ),
        (torch.zeros(4, 4), torch.full((4, 4), torch.nan), "second holds values that are not finite"),
        (
            Image.new("F", (4, 4)),
            Image.new("L", (4, 4)),
            "first has the mode F of 32 bits; convert it to L, RGB or I;16",
        ),
        (Image.new("L", (4, 4)), Image.new("L", (5, 4)), "first is 4x4, second 5x4"),
        (Image.new("L", (4, 4)), "vis.png", "first is a Image, second a str"),
    ],
)
def test_mistakes(fuser, first, second, words):
    with pytest.raises(UserError) as caught:
        fuser(first, second)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stem", ["full", "half"])
def test_large_images_in_tiles_are_the_same(tmp_path, write_network, fusion_genotype, stem):
    genotype = fusion_genotype("channel_attention_k3", "dilated_k3_d2", stem=stem)
    network = load_network(write_network(tmp_path / "network", genotype))
    whole, tiled = (Fuser(network, torch.device("cpu"), size, 1) for size in (2**30, 2**19))
    assert len(tiled._tiles(203, 210)) > 4
    first, second = array((203, 210), "float32"), array((203, 210, 3), "float32", 1)
    assert np.abs(whole(first, second) - tiled(first, second)).max() < 1e-5
    batch = torch.rand(2, 3, 1, 203, 210)
    assert (whole(*batch) - tiled(*batch)).abs().max() < 1e-5


def test_small_images_take_one_pass_whatever_the_network(tmp_path, write_network, fusion_genotype):
    fuser = load(write_network(tmp_path / "network", fusion_genotype(kind="decomposition", channels=32)), "cpu")
    assert len(fuser._tiles(480, 640)) == 1
    assert len(fuser._tiles(2500, 4000)) > 1


def test_a_non_local_network_has_its_limit(tmp_path, write_network, fusion_genotype):
    network = load_network(write_network(tmp_path / "network", fusion_genotype("non_local_k3")))
    fuser = Fuser(network, torch.device("cpu"), pass_pixels=400, pass_bytes=1)
    assert fuser(array((20, 20), "uint8"), array((20, 20), "uint8")).shape == (20, 20)
    with pytest.raises(
        UserError, match=r"small has a non-local operator.* at most 400 pixels, not 21x20; reduce the images"
    ):
        fuser(array((20, 21), "uint8"), array((20, 21), "uint8"))


def test_the_shortcut_of_the_package(network_folder):
    fuser = timfuse.load(network_folder, device="cpu")
    assert isinstance(fuser, Fuser)
    with pytest.raises(UserError, match="unknown device abacus"):
        timfuse.load(network_folder, device="abacus")


def test_loading_keeps_freed_memory(network_folder, monkeypatch):
    calls = []
    monkeypatch.setattr(sys.modules["timfuse.deploy.fuser"], "keep_freed_memory", lambda: calls.append(1))
    load(network_folder, "cpu")
    assert calls == [1]


# Not the resource usage of the process, which begins with that of the process that started it.
MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
import timfuse

fuser = timfuse.load(sys.argv[1], "cpu")
generator = np.random.default_rng(0)
first = generator.integers(0, 256, (2500, 4000), dtype=np.uint8)
second = generator.integers(0, 256, (2500, 4000, 3), dtype=np.uint8)
for _ in range(2):
    fuser(first, second)
print(re.search("VmHWM:(.*) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc elsewhere")
def test_ten_megapixels_stay_below_a_gigabyte(tmp_path, write_network, fusion_genotype):
    folder = write_network(tmp_path / "network", fusion_genotype(channels=16, stem="half"))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert int(done.stdout) < 2**20  # kilobytes
