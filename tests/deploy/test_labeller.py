"""Labels of fused images: they are what the task network finds in the saved image, and are kept like the images."""

import os
import shutil

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from timfuse.data import luma, match_pairs, read_pixels, unit_range
from timfuse.data.class_names import read_class_names
from timfuse.data.masks import read_mask
from timfuse.deploy import fuse_files, load, load_labeller
from timfuse.downstream import CompactDetector, build_task_network, keep_task_network, load_task_network
from timfuse.runtime.errors import UserError

NAMES = ["scene_0", "scene_1", "scene_2"]
CLASSES = ("person", "bicycle", "car")


def keep_detector(folder, classes=CLASSES, channels=1):
    """Put a detector with fresh weights into a run folder, one that finds something everywhere."""
    torch.manual_seed(0)
    detector = CompactDetector(classes, 8, channels)
    torch.nn.init.normal_(detector.heat[-1].weight, std=2.0)
    torch.nn.init.constant_(detector.heat[-1].bias, -1.0)
    keep_task_network(detector, folder)


@pytest.fixture
def fuse(folders, network_folder):
    """A function that fuses the three pairs and labels them; a fuser on the network with the labels' task network."""
    keep_detector(network_folder)
    fuser = load(network_folder, "cpu")

    def call(labels=folders / "found", output=folders / "out", first=folders / "ir", second=folders / "vis", **options):
        labeller = labels and load_labeller(network_folder, labels, fuser.device)
        return fuse_files(fuser, match_pairs(first, second), output, labels=labeller, **options)

    return call


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def predicted(network_folder, image):
    """What the task network finds in a saved image."""
    seen = unit_range(luma(read_pixels(image)))
    (found,) = load_task_network(network_folder).predict(torch.from_numpy(seen)[None, None])
    return found, seen.shape


def check_boxes(network_folder, image, file):
    """Compare a file of boxes with what is found in a saved image; return the scores."""
    found, (height, width) = predicted(network_folder, image)
    strong = found.scores >= 0.05
    assert strong.sum() > 3
    rows = np.loadtxt(file, ndmin=2)
    centre, size = rows[:, 1:3] * (width, height), rows[:, 3:5] * (width, height)
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    np.testing.assert_array_equal(rows[:, 0], found.classes[strong])
    np.testing.assert_allclose(corners, found.boxes[strong], atol=1e-3)
    np.testing.assert_allclose(rows[:, 5], found.scores[strong], atol=1e-6)
    assert (np.diff(rows[:, 5]) <= 0).all()
    return rows[:, 5]


def test_boxes_are_what_is_found_in_the_saved_images(fuse, folders, network_folder):
    assert fuse()[:2] == (3, 0)
    found = folders / "found"
    written = ["classes.txt", *(f"boxes/{name}.txt" for name in NAMES), *(f"pictures/{name}.png" for name in NAMES)]
    assert sorted(files(found)) == sorted(written)
    assert read_class_names(found / "classes.txt") == CLASSES
    for name in NAMES:
        scores = check_boxes(network_folder, folders / "out" / f"{name}.png", found / "boxes" / f"{name}.txt")
        fused, picture = (read_pixels(folder / f"{name}.png") for folder in (folders / "out", found / "pictures"))
        assert fused.ndim == 3
        assert picture.shape == fused.shape
        assert (picture != fused).any() == (scores.max() >= 0.3)
        assert (picture == fused).any()
    fuse(labels=None, output=folders / "plain")
    assert files(folders / "plain") == files(folders / "out")


@pytest.mark.parametrize("colour", [False, True])
def test_boxes_of_images_of_16_bits(fuse, folders, network_folder, colour):
    sides = ("ir", "vis") if colour else ("ir", "ir")
    for side in set(sides):
        for path in list((folders / side).iterdir()):
            pixels = np.asarray(Image.open(path)).astype(np.uint16) * 257
            path.unlink()
            if pixels.ndim == 3:
                tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="rgb")
            else:
                Image.fromarray(pixels).save(path)
    shutil.copytree(folders / sides[1], folders / "second")
    fuse(second=folders / "second")
    image = folders / "out" / f"scene_1{'.tif' if colour else '.png'}"
    assert read_pixels(image).dtype == np.uint16
    check_boxes(network_folder, image, folders / "found" / "boxes" / "scene_1.txt")
    picture = read_pixels(folders / "found" / "pictures" / "scene_1.png")
    assert (picture.dtype, picture.shape) == (np.uint8, (70, 50, 3))
    eighth = read_pixels(image).reshape(70, 50, -1) / 257
    assert (np.abs(picture - eighth) <= 0.5).all(axis=-1).any()


def test_a_network_that_sees_colours_gets_those_of_the_fused_image(network_folder, folders):
    keep_detector(network_folder, channels=3)
    labeller = load_labeller(network_folder, folders / "found", torch.device("cpu"))
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for pixels, planes in ((image, image), (image[..., 0], np.dstack([image[..., 0]] * 3))):
        seen = torch.from_numpy(unit_range(planes)).permute(2, 0, 1)[None]
        (expected,) = load_task_network(network_folder).predict(seen)
        found = labeller.find(pixels)
        assert len(found.scores) > 3
        torch.testing.assert_close(found.boxes, expected.boxes[expected.scores >= 0.05])
    keep_detector(network_folder, channels=4)
    with pytest.raises(UserError, match="sees both sources, not a fused image; name another run"):
        load_labeller(network_folder, folders / "found", torch.device("cpu"))


def test_an_image_in_which_nothing_is_found(fuse, folders, network_folder):
    keep_task_network(CompactDetector(CLASSES, 8), network_folder)  # 1 % everywhere
    fuse()
    assert (folders / "found" / "boxes" / "scene_0.txt").read_text() == ""
    np.testing.assert_array_equal(
        read_pixels(folders / "found" / "pictures" / "scene_0.png"), read_pixels(folders / "out" / "scene_0.png")
    )


def test_masks_are_what_is_found_in_the_saved_images(fuse, folders, network_folder):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    classes = ("background", *CLASSES)
    network = build_task_network("segmentation", "segformer-tiny", classes, 8)
    torch.nn.init.normal_(network.model.decode_head.classifier.weight)
    keep_task_network(network, network_folder)
    fuse()
    found = folders / "found"
    written = ["label-classes.txt", *(f"{folder}/{name}.png" for folder in ("label", "pictures") for name in NAMES)]
    assert sorted(files(found)) == sorted(written)
    assert read_class_names(found / "label-classes.txt") == classes
    several = False
    for name in NAMES:
        mask, _ = predicted(network_folder, folders / "out" / f"{name}.png")
        np.testing.assert_array_equal(read_mask(found / "label" / f"{name}.png"), mask)
        fused, picture = (read_pixels(folder / f"{name}.png") for folder in (folders / "out", found / "pictures"))
        np.testing.assert_array_equal(picture[mask == 0], fused[mask == 0])
        several |= len(mask.unique()) > 1
    assert several


def test_what_is_there_is_kept_unless_asked(fuse, folders):
    fuse()
    whole = files(folders / "out"), files(folders / "found")
    with pytest.raises(UserError, match="out holds 3 of 3 fused images already"):
        fuse()
    shutil.move(folders / "out" / "scene_0.png", folders / "kept.png")
    for name in NAMES[1:]:
        (folders / "out" / f"{name}.png").unlink()
    with pytest.raises(UserError, match="found holds 3 of 3 labels already; go on with --resume, replace them with"):
        fuse()
    shutil.move(folders / "kept.png", folders / "out" / "scene_0.png")
    (folders / "found" / "boxes" / "scene_2.txt").unlink()
    (folders / "found" / "boxes" / "scene_0.txt").write_text("old")
    assert fuse(resume=True)[:2] == (2, 1)  # of the first pair both are there
    assert (folders / "found" / "boxes" / "scene_0.txt").read_text() == "old"
    assert fuse(resume=True)[:2] == (0, 3)
    assert fuse(overwrite=True)[:2] == (3, 0)
    assert (files(folders / "out"), files(folders / "found")) == whole


def test_labels_for_images_that_were_fused_without(fuse, folders):
    fuse(labels=None)
    with pytest.raises(UserError, match="out holds 3 of 3 fused images already"):
        fuse()
    images = files(folders / "out")
    assert fuse(resume=True)[:2] == (3, 0)
    assert files(folders / "out") == images
    assert len(files(folders / "found" / "boxes")) == 3


def test_the_labels_are_written_last(fuse, folders, monkeypatch):
    names, rename = [], os.replace

    def replace(source, target):
        names.append(str(target.relative_to(folders)))
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    fuse(first=folders / "ir" / "scene_0.png", second=folders / "vis" / "scene_0.png")
    images = ["out/scene_0.png", "found/pictures/scene_0.png"]
    assert names == ["found/classes.txt", *images, "found/boxes/scene_0.txt"]


def test_other_classes_are_not_mixed(fuse, folders, network_folder):
    fuse()
    (folders / "found" / "boxes" / "scene_0.txt").unlink()
    keep_detector(network_folder, ("cat", "dog"))
    with pytest.raises(
        UserError, match=r"classes\.txt names other classes than those of the task network \(cat, dog\)"
    ):
        fuse(resume=True)
    assert not (folders / "found" / "boxes" / "scene_0.txt").exists()
    fuse(overwrite=True)
    assert read_class_names(folders / "found" / "classes.txt") == ("cat", "dog")


def test_nothing_else_is_replaced(fuse, folders):
    with pytest.raises(
        UserError, match=r"found/pictures/scene_0\.png would be the fused image and a file of its labels"
    ):
        fuse(output=folders / "found" / "pictures", overwrite=True)
    shutil.move(folders / "ir", folders / "pictures")
    before = files(folders / "pictures")
    with pytest.raises(UserError, match=r"pictures/scene_0\.png is a source, and would be replaced"):
        fuse(labels=folders, first=folders / "pictures", overwrite=True)
    (folders / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file: a part of this path is a file"):
        fuse(labels=folders / "file", first=folders / "pictures")
    assert files(folders / "pictures") == before
    assert not (folders / "found").exists()


def test_networks_without_a_task_network(network_folder, folders):
    cpu = torch.device("cpu")
    for name in ("ivif", network_folder):
        with pytest.raises(UserError) as caught:
            load_labeller(name, folders / "found", cpu)
        assert str(caught.value) == f"{name} has no task network: name the folder of a `timfuse finetune` run"
    keep_detector(network_folder)
    (network_folder / "task" / "specification.yaml").unlink()
    with pytest.raises(UserError, match=r"specification\.yaml is missing"):
        load_labeller(network_folder, folders / "found", cpu)
    with pytest.raises(UserError, match="no network 'nothing'"):
        load_labeller("nothing", folders / "found", cpu)


def test_an_error_of_the_task_network_names_the_pair(fuse, folders, monkeypatch):
    def refuse(*_):
        raise UserError("too small")

    monkeypatch.setattr(CompactDetector, "predict", refuse)
    assert fuse().failed[0] == "the pair scene_0: too small"
    assert not list((folders / "out").iterdir())
