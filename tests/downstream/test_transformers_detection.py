import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from timfuse.data.pair_batch import Objects, PairBatch
from timfuse.data.synthetic import make_scene
from timfuse.downstream.luma_input import LumaInput
from timfuse.downstream.scoring import score_detections
from timfuse.downstream.task_network import MOST_DETECTIONS
from timfuse.downstream.transformers_network import KINDS, TransformersNetwork

pytest.importorskip("transformers")
pytest.importorskip("scipy")

from transformers import AutoConfig, AutoModelForObjectDetection

SAVED = ("Car", "dog", "person", "tree")
CLASSES = ("person", "bicycle", "car")
FAMILIES = KINDS["detection"].families

_RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
_HGNET = {
    "model_type": "hgnet_v2",
    "embedding_size": 16,
    "stem_channels": [3, 8, 16],
    "hidden_sizes": [16, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "stage_in_channels": [16, 16, 16, 24],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [16, 16, 24, 32],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [2, 2, 2, 2],
}
_DETR = {
    "backbone_config": {**_RESNET, "out_features": ["stage4"]},
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 20,
    "dropout": 0.0,
}
_RT_DETR = {
    "backbone_config": {**_RESNET, "model_type": "rt_detr_resnet", "out_features": ["stage2", "stage3", "stage4"]},
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 24, 32],
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "d_model": 32,
    "num_queries": 20,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "num_denoising": 10,
}
CONFIGS = {
    "conditional_detr": _DETR,
    "d_fine": {**_RT_DETR, "backbone_config": {**_HGNET, "out_features": ["stage2", "stage3", "stage4"]}},
    "dab-detr": {"hidden_size": 32, **{key: value for key, value in _DETR.items() if key != "d_model"}},
    "deformable_detr": {
        **_DETR,
        "backbone_config": {**_RESNET, "out_features": ["stage2", "stage3", "stage4"]},
        "num_feature_levels": 3,
    },
    "detr": _DETR,
    "rt_detr": _RT_DETR,
    "rt_detr_v2": _RT_DETR,
    "table-transformer": _DETR,
    "yolos": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": [64, 64],
        "num_detection_tokens": 20,
        "hidden_dropout_prob": 0.0,
    },
}


def save(folder, family, names=SAVED):
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    config = AutoConfig.for_model(family, **copy.deepcopy(CONFIGS[family]), **labels)
    model = AutoModelForObjectDetection.from_config(config)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    detectors = {}

    def open_once(family):
        if family not in detectors:
            folder = tmp_path_factory.mktemp("saved")
            save(folder, family)
            detectors[family] = open_detector(folder, CLASSES)
        return copy.deepcopy(detectors[family])

    return open_once


def open_detector(folder, classes):
    return TransformersNetwork.from_pretrained("detection", folder, classes)


def detector_of(model, inputs):
    return TransformersNetwork("detection", model, inputs, "stand-in")


def batch_of(images, *objects):
    return PairBatch(images, images, tuple(objects))


def no_objects():
    return Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def two_objects():
    return Objects(torch.tensor([[4.0, 8, 30, 40], [50, 20, 78, 69]]), torch.tensor([0, 2]))


def test_all_families_are_tested():
    assert set(FAMILIES) == set(CONFIGS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_loss_reaches_images_of_any_size(opened, family, training):
    detector = opened(family).train(training)
    images = torch.rand(2, 1, 70, 90, generator=torch.Generator().manual_seed(0)).requires_grad_()
    objects = two_objects()
    copies = [part.clone() for part in objects]
    loss = detector.loss(images, batch_of(images.detach(), objects, no_objects()))
    assert loss.shape == ()
    assert loss > 0
    (gradient,) = torch.autograd.grad(loss, images)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert detector.training == training
    assert all(torch.equal(part, copy) for part, copy in zip(objects, copies, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_without_objects_has_a_loss(opened, family):
    images = torch.rand(2, 1, 64, 64)
    loss = opened(family).train().loss(images, batch_of(images, no_objects(), no_objects()))
    assert loss.isfinite()
    loss.backward()


@pytest.mark.parametrize("family", FAMILIES)
def test_predictions_are_inside_the_image_best_first(opened, family):
    detector = opened(family).eval()
    predictions = detector.predict(torch.rand(2, 1, 64, 90))
    assert len(predictions) == 2
    for boxes, scores, classes in predictions:
        assert 0 < len(boxes) == len(scores) == len(classes) <= MOST_DETECTIONS
        assert boxes.dtype == scores.dtype == torch.float32
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= 90).all()
        assert (boxes[:, 3] <= 64).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (scores.diff() <= 0).all()
        assert ((scores >= 0) & (scores <= 1)).all()
        assert ((classes >= 0) & (classes < len(CLASSES))).all()
        assert not scores.requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_a_specification_makes_the_same_network(opened, family):
    detector = opened(family).eval()
    specification = yaml.safe_load(yaml.safe_dump(detector.specification()))
    assert specification == detector.specification()
    again = TransformersNetwork.from_specification(specification).eval()
    again.load_state_dict(detector.state_dict())
    assert again.classes == CLASSES
    assert again.specification() == specification
    images = torch.rand(1, 1, 70, 90)
    for before, after in zip(detector.predict(images)[0], again.predict(images)[0], strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_of_the_same_name_keep_their_weights(tmp_path, family):
    saved = save(tmp_path, family).state_dict()
    fitted = open_detector(tmp_path, CLASSES).model.state_dict()
    changed = [name for name in saved if saved[name].shape != fitted[name].shape]
    assert changed
    for name in changed:
        # Persons were third and are first, cars were first and are third; nobody knew bicycles.
        assert torch.equal(fitted[name][0], saved[name][2])
        assert torch.equal(fitted[name][2], saved[name][0])
        assert torch.equal(fitted[name][3:], saved[name][4:])
        # Biases start with one value for all classes.
        assert saved[name].ndim == 1 or not any(torch.equal(fitted[name][1], row) for row in saved[name])
    assert all(torch.equal(fitted[name], saved[name]) for name in saved if name not in changed)


def test_as_many_other_classes_are_other_classes(tmp_path):
    saved = save(tmp_path, "detr").eval()
    images = torch.rand(1, 3, 64, 64)
    order = [2, 0, 3, 1]
    fitted = open_detector(tmp_path, [SAVED[place].upper() for place in order]).eval()
    assert fitted.classes == ("PERSON", "CAR", "TREE", "DOG")
    with torch.no_grad():
        # The last one stands for no object.
        torch.testing.assert_close(fitted.model(images).logits, saved(images).logits[..., [*order, 4]])
    fitted = open_detector(tmp_path, ("bus", "person", "lamp", "bike")).model.state_dict()
    before, after = (weights["class_labels_classifier.weight"] for weights in (saved.state_dict(), fitted))
    assert torch.equal(after[[1, 4]], before[[2, 4]])
    assert not any(torch.equal(after[row], before[row]) for row in (0, 2, 3))


def test_the_size_of_the_images_is_not_that_of_the_saved_network(tmp_path):
    save(tmp_path, "rt_detr")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "anchor_image_size": [64, 64], "eval_size": [64, 64]}))
    detector = open_detector(tmp_path, CLASSES).eval()
    assert detector.predict(torch.rand(1, 1, 96, 128))


class Answering(nn.Module):
    """A stand-in for a network: keeps its labels and answers as it was told."""

    def __init__(self, logits, boxes):
        super().__init__()
        self.config = SimpleNamespace(id2label=dict(enumerate(CLASSES)))
        self.output = SimpleNamespace(logits=logits, pred_boxes=boxes, loss=torch.zeros(()))

    def forward(self, inputs, labels=None):
        self.inputs, self.labels = inputs, labels
        return self.output


def test_boxes_there_and_back():
    objects = two_objects()
    images = torch.rand(1, 1, 70, 90)
    asked = Answering(None, None)
    detector = detector_of(asked, LumaInput([0.5] * 3, [0.25] * 3))
    detector.loss(images, batch_of(images, objects))
    assert asked.inputs.shape == (1, 3, 96, 96)
    torch.testing.assert_close(asked.inputs[0, :, :70, :90], ((images[0] - 0.5) / 0.25).expand(3, -1, -1))
    (labels,) = asked.labels
    assert labels["class_labels"] is objects.classes
    torch.testing.assert_close(labels["boxes"][0], torch.tensor([17 / 96, 24 / 96, 26 / 96, 32 / 96]))

    logits = torch.full((1, 2, 3), -9.0)
    logits[0, [1, 0], [0, 2]] = torch.tensor([1.0, 3.0])
    answering = Answering(logits, labels["boxes"].flip(0)[None])
    (found,) = detector_of(answering, detector.inputs).predict(images)
    torch.testing.assert_close(found.boxes[:2], objects.boxes.flip(0))
    assert found.classes[:2].tolist() == [2, 0]
    torch.testing.assert_close(found.scores[:2], torch.tensor([3.0, 1.0]).sigmoid())
    assert len(found.boxes) == 6
    truth = Objects(objects.boxes, objects.classes)
    assert score_detections([found], [truth], CLASSES, [(70, 90)]).map == pytest.approx(1)


def test_a_class_for_nothing_is_no_answer():
    logits = torch.tensor([[[0.0, 1.0, 0.0, 3.0], [2.0, 0.0, 0.0, 0.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.25, 0.5, 0.5, 0.5]]])
    detector = detector_of(Answering(logits, boxes), LumaInput([0.0], [1.0]))
    (found,) = detector.predict(torch.rand(1, 1, 32, 64))
    assert found.classes.tolist() == [0, 1]
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 8, 32, 24], [25.6, 12.8, 38.4, 19.2]]))
    assert found.scores.tolist() == pytest.approx(
        [math.exp(2) / (math.exp(2) + 3), math.e / (2 + math.e + math.exp(3))]
    )


def test_what_lies_in_the_padding_is_cut_off():
    # The lower box of a 40 x 64 image reaches from row 36 to 64, the other lies in the padding.
    boxes = torch.tensor([[[0.5, 50 / 64, 0.5, 28 / 64], [0.5, 54 / 64, 0.5, 20 / 64]]])
    detector = detector_of(Answering(torch.zeros(1, 2, 3), boxes), LumaInput([0.0], [1.0]))
    (found,) = detector.predict(torch.rand(1, 1, 40, 64))
    assert found.boxes.tolist() == [[16, 36, 48, 40]] * 3


@pytest.mark.rounding
@pytest.mark.parametrize("family", ["rt_detr", "d_fine", "detr"])
def test_learning_lowers_the_loss(opened, family):
    scenes = [make_scene(seed, height=96, width=96) for seed in (0, 1)]
    images = torch.stack([torch.from_numpy(scene.first)[None] / 255 for scene in scenes])
    batch = batch_of(
        images, *(Objects(torch.from_numpy(each.boxes), torch.from_numpy(each.classes)) for each in scenes)
    )
    assert all(len(objects.classes) for objects in batch.objects)
    torch.manual_seed(0)
    detector = opened(family).eval()
    optimiser = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = detector.loss(images, batch)
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
    # The matches of queries to objects jump, so that the last loss hangs on rounding. The least one does not: it is at
    # most 0.72 of the first, over eight seeds with and without AVX2.
    assert min(losses) < 0.85 * losses[0]
