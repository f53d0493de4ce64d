import shutil

import numpy as np
import pytest
import torch

from timfuse.data import open_pairs, read_pixels, write_pixels
from timfuse.finetune.finetune_pairs import validation_pairs, with_fused_images
from timfuse.runtime.errors import UserError

CPU = torch.device("cpu")
NAMES = tuple(f"scene_{index:05d}" for index in range(5))


@pytest.fixture
def own(scenes, tmp_path):
    """A copy of the data set that a test may change."""
    shutil.copytree(scenes, tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def fused(scenes, tmp_path):
    """A method's images: the negatives of the visible ones."""
    for name in NAMES:
        write_pixels(tmp_path / "fused" / f"{name}.png", 255 - read_pixels(scenes / "vis" / f"{name}.png"))
    return tmp_path / "fused"


def opened(*roots, labels="boxes", fused=None, **settings):
    pairs = open_pairs(roots or [None], task="infrared-visible", labels=labels, **{"validation": 0.2} | settings)
    return pairs if fused is None else with_fused_images(pairs, fused)


def batches(pairs, name="task", steps=3):
    cut = {"batch_size": 2, "crop": 32, "seed": 0, "scale": (0.75, 1.5), "upright": True}
    return pairs.batches(name, 0, steps, **cut)


def test_synthetic_pairs_by_default():
    pairs = opened(synthetic_pairs=10, validation=0.2)
    training, validation = pairs.positions("training"), pairs.positions("validation")
    assert (len(training), len(validation), pairs.source.labels) == (8, 2, "boxes")
    assert not set(training) & set(validation)
    assert len(opened(synthetic_pairs=10, validation=0.5, validation_pairs=2).positions("validation")) == 2


def test_the_fingerprint_tells_fused_images_from_their_sources(own, fused):
    first = opened(own).fingerprint()
    prints = [opened(own, **settings).fingerprint() for settings in ({"labels": "masks"}, {"fused": fused})]
    write_pixels(fused / f"{NAMES[0]}.png", 255 - read_pixels(fused / f"{NAMES[0]}.png"))
    prints.append(opened(own, fused=fused).fingerprint())
    assert len({first, *prints}) == 4


@pytest.mark.parametrize("labels", ["boxes", "masks"])
def test_validation_pairs_are_whole_with_their_labels(scenes, labels):
    pairs = opened(scenes, labels=labels)
    seen = list(validation_pairs(pairs, CPU))
    assert [name.rpartition("/")[2] for name, *_ in seen] == list(NAMES[3:])
    for index, (_, batch, image) in zip(pairs.positions("validation"), seen, strict=True):
        assert image is None
        assert batch.first.shape == (1, 1, 64, 96)
        first, second = pairs.source[index]
        assert torch.equal((batch.first[0, 0] * 255).round().byte(), torch.from_numpy(first))
        assert torch.equal((batch.second[0, 0] * 255).round().byte(), torch.from_numpy(second))
        if labels == "boxes":
            assert all(map(torch.equal, batch.objects[0], pairs.source.objects(index)))
        else:
            assert torch.equal(batch.masks[0], torch.from_numpy(pairs.source.mask(index)).long())


@pytest.mark.parametrize("labels", ["boxes", "masks"])
def test_fused_images_are_learnt_from_and_scored_beside_their_sources(scenes, fused, labels):
    pairs, plain = opened(scenes, labels=labels, fused=fused), opened(scenes, labels=labels)
    for ours, theirs in zip(batches(pairs), batches(plain), strict=True):
        assert torch.equal(ours.first, ours.second)
        torch.testing.assert_close(ours.first, 1 - theirs.second, rtol=0, atol=1e-5)
        if labels == "boxes":
            for objects, expected in zip(ours.objects, theirs.objects, strict=True):
                assert all(map(torch.equal, objects, expected))
        else:
            assert torch.equal(ours.masks, theirs.masks)
    for (name, batch, image), (same, expected, _) in zip(
        validation_pairs(pairs, CPU), validation_pairs(plain, CPU), strict=True
    ):
        assert name == same
        assert torch.equal(batch.first, expected.first)
        assert torch.equal(batch.second, expected.second)
        assert image.dtype == torch.float32
        torch.testing.assert_close(image, 1 - expected.second, rtol=0, atol=1e-6)


def test_fused_images_of_pairs_that_share_a_name_are_refused(scenes, own, fused):
    with pytest.raises(UserError, match=r"several pairs are called scene_00000, so that .* cannot hold an image of"):
        opened(scenes, own, fused=fused)


def test_fused_images_with_16_bits_and_in_colour_have_the_luma_of_the_8_bits(scenes, fused):
    grey = [image for *_, image in validation_pairs(opened(scenes, fused=fused), CPU)]
    for name in NAMES:
        pixels = read_pixels(fused / f"{name}.png")
        write_pixels(fused / f"{name}.png", pixels.astype(np.uint16) * 257)
    deep = [image for *_, image in validation_pairs(opened(scenes, fused=fused), CPU)]
    for one, other in zip(grey, deep, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1 / 255)


def test_a_missing_a_small_and_a_damaged_fused_image_are_told_before_anything_else(scenes, fused):
    path = fused / f"{NAMES[1]}.png"
    pixels = read_pixels(path)
    write_pixels(path, pixels[:-1])
    with pytest.raises(UserError, match=r"scene_00001\.png is 96x63, its pair 96x64; fuse the pair at its own size"):
        opened(scenes, fused=fused)
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(UserError, match=r"scene_00001\.png"):
        opened(scenes, fused=fused)
    path.unlink()
    with pytest.raises(UserError, match=r"lacks the fused images of 1 of 5 pairs \(scene_00001\)"):
        opened(scenes, fused=fused)
    with pytest.raises(UserError, match="the folder of fused images nowhere does not exist"):
        opened(scenes, fused=scenes.__class__("nowhere"))


@pytest.mark.parametrize(("labels", "folder"), [("boxes", "boxes"), ("masks", "label")])
def test_pairs_without_labels_are_one_line(own, labels, folder):
    shutil.rmtree(own / "boxes")
    shutil.rmtree(own / "label")
    with pytest.raises(UserError) as caught:
        opened(own, labels=labels)
    assert folder in str(caught.value)
    assert str(own) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_without_a_name_is_refused_and_a_pair_without_boxes_is_not(own):
    (own / "boxes" / f"{NAMES[2]}.txt").write_text("7 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UserError, match=r"scene_00002\.txt"):
        opened(own)
    (own / "boxes" / f"{NAMES[2]}.txt").unlink()
    opened(own)


def test_pairs_that_are_too_few_or_too_small(own):
    with pytest.raises(UserError, match="1 pair cannot be split into training and validation"):
        opened(_only(own, 1))


def _only(root, count):
    for file in ("train.txt", "val.txt"):
        (root / file).unlink()
    for name in NAMES[count:]:
        for side in ("ir", "vis", "label"):
            (root / side / f"{name}.png").unlink()
        (root / "boxes" / f"{name}.txt").unlink()
    return root
