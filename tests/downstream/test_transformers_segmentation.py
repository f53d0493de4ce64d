import copy

import pytest
import torch
import yaml
from torch.nn import functional as F

from timfuse.data.pair_batch import IGNORED, PairBatch
from timfuse.data.synthetic import MASK_CLASSES, make_scene
from timfuse.downstream.scoring import score_masks
from timfuse.downstream.transformers_network import KINDS, TransformersNetwork, dice_loss, pixel_logits, segformer_tiny

pytest.importorskip("transformers")
pytest.importorskip("scipy")

from transformers import AutoConfig, AutoModelForSemanticSegmentation

SAVED = ("background", "Car", "tree", "person", "sky")
FAMILIES = KINDS["segmentation"].families
CONFIGS = {
    "beit": {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 64,
        "patch_size": 16,
        "out_indices": [1, 2, 3, 4],
        "pool_scales": [1, 2, 3, 6],
    },
    "mobilenet_v2": {"depth_multiplier": 0.25, "image_size": 64},
    "mobilevit": {
        "image_size": 64,
        "hidden_sizes": [16, 16, 24],
        "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
        "aspp_out_channels": 16,
    },
    "mobilevitv2": {"image_size": 64, "width_multiplier": 0.25, "aspp_out_channels": 16},
    "segformer": {"hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4, "num_attention_heads": [1] * 4},
    "upernet": {
        "backbone_config": {
            "model_type": "convnext",
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 16, 16, 16],
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        "hidden_size": 16,
        "auxiliary_in_channels": 16,
        "auxiliary_channels": 16,
    },
}


def save(folder, family):
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(SAVED)), "label2id": {name: number for number, name in enumerate(SAVED)}}
    config = AutoConfig.for_model(family, **copy.deepcopy(CONFIGS[family]), **labels)
    model = AutoModelForSemanticSegmentation.from_config(config)
    model.save_pretrained(folder)
    return model


def logits_of(segmenter, images):
    return pixel_logits(segmenter.model, segmenter.inputs(images), *images.shape[-2:])


def test_all_families_are_tested():
    assert set(FAMILIES) == set(CONFIGS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_network_serves(tmp_path, family):
    saved = save(tmp_path, family).state_dict()
    segmenter = TransformersNetwork.from_pretrained("segmentation", tmp_path, MASK_CLASSES)
    assert segmenter.classes == MASK_CLASSES == ("background", "person", "bicycle", "car")

    fitted = segmenter.model.state_dict()
    changed = [name for name in saved if saved[name].shape != fitted[name].shape]
    assert changed
    for name in changed:
        assert torch.equal(fitted[name][[0, 1, 3]], saved[name][[0, 3, 1]])
    assert all(torch.equal(fitted[name], saved[name]) for name in saved if name not in changed)

    images = torch.rand(2, 1, 70, 90, requires_grad=True)
    masks = torch.randint(0, 4, (2, 70, 90))
    (gradient,) = torch.autograd.grad(segmenter.train().loss(images, PairBatch(images, images, None, masks)), images)
    assert gradient.isfinite().all()
    assert gradient.any()

    predicted = segmenter.eval().predict(images)
    assert (predicted.shape, predicted.dtype) == ((2, 70, 90), torch.int64)
    specification = yaml.safe_load(yaml.safe_dump(segmenter.specification()))
    assert specification == segmenter.specification()
    again = TransformersNetwork.from_specification(specification).eval()
    again.load_state_dict(segmenter.state_dict())
    assert torch.equal(logits_of(again, images), logits_of(segmenter, images))


def test_the_tiny_segformer_is_tiny():
    segmenter = segformer_tiny(MASK_CLASSES)
    assert 200_000 < sum(weight.numel() for weight in segmenter.parameters()) < 300_000
    assert segmenter.inputs(torch.rand(1, 1, 64, 64)).shape[1] == 1
    assert segmenter.task == "segmentation"
    again = TransformersNetwork.from_specification(segmenter.specification())
    again.load_state_dict(segmenter.state_dict())


def test_the_loss_is_the_cross_entropy_and_the_dice_loss_of_what_is_not_ignored():
    torch.manual_seed(0)
    segmenter = segformer_tiny(MASK_CLASSES).eval()
    images = torch.rand(2, 1, 40, 70)
    masks = torch.randint(0, 4, (2, 40, 70))
    masks[0, :30] = IGNORED
    logits = logits_of(segmenter, images)
    assert logits.shape == (2, 4, 40, 70)
    loss = segmenter.loss(images, PairBatch(images, images, None, masks))
    dice = []
    for number in range(4):
        share, shown = logits.softmax(1)[:, number][masks != IGNORED], (masks == number)[masks != IGNORED]
        dice.append(1 - (2 * share[shown].sum() + 1) / (share.sum() + shown.sum() + 1))
    expected = F.cross_entropy(logits, masks, ignore_index=IGNORED) + torch.stack(dice).mean()
    torch.testing.assert_close(loss, expected)
    other = images.clone()
    assert segmenter.loss(images, PairBatch(other.zero_(), other, None, masks)) == loss
    nothing = segmenter.loss(images, PairBatch(images, images, None, torch.full_like(masks, IGNORED)))
    assert nothing == 0
    nothing.backward()


def test_the_dice_loss_is_over_the_classes_that_masks_show():
    masks = torch.zeros(2, 8, 8, dtype=torch.int64)
    masks[0, :2] = 2
    right = 30.0 * F.one_hot(masks, 4).permute(0, 3, 1, 2)
    assert dice_loss(right, masks) < 1e-6
    background = torch.tensor([30.0, 0, 0, 0])[:, None, None].expand(2, 4, 8, 8)
    # Of 128 pixels 16 are of class 2, and none is taken for it.
    expected = (1 - (2 * 112 + 1) / (128 + 112 + 1) + 1 - 1 / 17) / 2
    assert float(dice_loss(background, masks)) == pytest.approx(expected, abs=1e-6)


def test_padding_does_not_move_the_classes():
    # The logits of a padded image are those of the larger image, cut.
    torch.manual_seed(0)
    segmenter = segformer_tiny(MASK_CLASSES).eval()
    images = torch.rand(1, 1, 64, 96)
    images[..., 40:, :] = images[..., 39:40, :]
    images[..., 70:] = images[..., 69:70]
    cut = logits_of(segmenter, images[..., :40, :70])
    torch.testing.assert_close(cut, logits_of(segmenter, images)[..., :40, :70])


@pytest.mark.rounding
def test_two_scenes_are_learnt():
    pytest.importorskip("torchmetrics")
    scenes = [make_scene(seed, height=96, width=96) for seed in (0, 1)]
    images = torch.stack([torch.from_numpy(scene.first)[None] / 255 for scene in scenes])
    masks = torch.stack([torch.from_numpy(scene.mask).long() for scene in scenes])
    batch = PairBatch(images, images, None, masks)
    torch.manual_seed(0)
    segmenter = segformer_tiny(MASK_CLASSES)
    optimiser = torch.optim.AdamW(segmenter.parameters(), lr=3e-3)
    before = segmenter.eval().loss(images, batch).item()
    segmenter.train()
    for _ in range(60):
        optimiser.zero_grad()
        segmenter.loss(images, batch).backward()
        optimiser.step()
    # Over five seeds with and without AVX2 at most 0.22 of the loss, and a mean IoU of 0.53 to 0.60.
    assert segmenter.eval().loss(images, batch).item() < 0.4 * before
    assert score_masks(segmenter.predict(images), masks, MASK_CLASSES).miou > 0.4
