"""The guiding detectors: what their loss trains, what the guidance scores, their attention, and their files."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from timfuse.data.pair_batch import Objects, PairBatch
from timfuse.downstream.compact_detector import CompactDetector, padded
from timfuse.downstream.guiding_detectors import GuidingDetectors, keep_guiding_detectors, load_guiding_detectors
from timfuse.operators import for_inference
from timfuse.runtime.errors import UserError

CLASSES = ("person", "car")


def make(width=4, seed=0):
    """Small detectors with statistics as after a training."""
    torch.manual_seed(seed)
    detectors = GuidingDetectors(CLASSES, width)
    norms = [module for module in detectors.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.uniform_(-0.5, 0.5)
    with torch.no_grad():
        detectors.attention(*pair(seed=1))
    for norm in norms:
        norm.momentum = 0.1
    return detectors.eval()


def pair(height=64, width=96, samples=2, seed=0):
    return torch.rand(2, samples, 1, height, width, generator=torch.Generator().manual_seed(seed))


def batch_of(first, second):
    objects = [
        Objects(torch.tensor([[8.0, 10.0, 30.0, 40.0], [40.0, 4.0, 80.0, 50.0]]), torch.tensor([0, 1])),
        Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    return PairBatch(first, second, tuple(objects[: len(first)]))


def seen_by_the_heads(monkeypatch):
    """Record the pyramids that detectors read."""
    seen = []
    read = CompactDetector.maps

    def maps(detector, levels):
        seen.append((detector, levels))
        return read(detector, levels)

    monkeypatch.setattr(CompactDetector, "maps", maps)
    return seen


def test_the_loss_is_the_mean_over_both_detectors_with_attention_and_without():
    detectors = make()
    batch = batch_of(*pair())
    plain = [detectors.first.pyramid(batch.first), detectors.second.pyramid(batch.second)]
    losses = [detectors.first.loss(batch.first, batch), detectors.second.loss(batch.second, batch)]
    for detector, attended in zip((detectors.first, detectors.second), detectors.shared(*plain), strict=True):
        losses.append(detector.loss_of(detector.maps(attended.levels), batch))
    torch.testing.assert_close(detectors.loss(batch), sum(losses) / 4)


def test_the_heads_are_trained_on_the_features_that_the_guidance_shows_them(monkeypatch):
    detectors = make()
    image = pair()[0]
    batch = batch_of(image, image)
    seen = seen_by_the_heads(monkeypatch)
    detectors.loss(batch)
    detectors.guidance(image, batch)
    assert [detector for detector, _ in seen] == 2 * [detectors.first, detectors.second]
    for (_, trained), (_, shown) in zip(seen[:2], seen[2:], strict=True):
        assert all(torch.equal(some[: len(image)], level) for some, level in zip(trained, shown, strict=True))


def test_the_statistics_of_the_heads_are_those_they_were_trained_with(monkeypatch):
    detectors = make().train()
    for module in detectors.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    batch = batch_of(*pair(128, 128))
    trained = []
    read = CompactDetector.maps
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(CompactDetector, "maps", lambda *arguments: trained.append(read(*arguments)) or trained[-1])
        detectors.loss(batch)
    detectors.eval()
    for detector, image, (in_training, _) in zip(
        (detectors.first, detectors.second), (batch.first, batch.second), trained, strict=True
    ):
        logits, _ = detector.maps(detector.pyramid(image))
        # But for the variance of a sample and that of a population, of few pixels in the deepest maps.
        assert (logits - in_training[: len(image)]).std() < 0.05 * in_training.std()


def test_guidance_is_the_mean_loss_of_both_detectors():
    detectors = make()
    first, second = pair()
    batch = batch_of(first, second)
    fused = (first + second) / 2
    losses = detectors.first.loss(fused, batch), detectors.second.loss(fused, batch)
    torch.testing.assert_close(detectors.guidance(fused, batch), sum(losses) / 2)


def test_guidance_reaches_the_image_and_no_frozen_weight():
    detectors = make().requires_grad_(False)
    before = copy.deepcopy(detectors.state_dict())
    first, second = pair()
    fused = ((first + second) / 2).requires_grad_()
    detectors.guidance(fused, batch_of(first, second)).backward()
    assert fused.grad[0].abs().sum() > 0
    assert fused.grad.isfinite().all()
    assert all(parameter.grad is None for parameter in detectors.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in detectors.state_dict().items())


def test_the_loss_reaches_every_weight():
    detectors = make().train()
    detectors.loss(batch_of(*pair())).backward()
    assert [name for name, parameter in detectors.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_attention_is_the_larger_of_both_detectors_at_the_finest_level():
    detectors = make()
    first, second = pair()
    attended = detectors.shared(detectors.first.pyramid(first), detectors.second.pyramid(second))
    maps = [pyramid.attention[0] for pyramid in attended]
    assert (maps[0] > maps[1]).any()
    assert (maps[0] < maps[1]).any()
    attention = detectors.attention(first, second)
    expected = F.interpolate(torch.maximum(*maps), (64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(attention, expected)
    assert ((attention >= 0) & (attention <= 1)).all()


@pytest.mark.parametrize("size", [(97, 131), (1, 1), (50, 33), (64, 5)])
@torch.no_grad()
def test_attention_and_objects_of_any_size_are_those_of_a_replicated_border(size):
    detectors = make()
    first, second = pair(*size)
    larger = detectors.attention(padded(first), padded(second))
    attention = detectors.attention(first, second)
    assert attention.shape == first.shape
    assert torch.equal(attention, larger[..., : size[0], : size[1]])
    for found in detectors.predict(first, second):
        limits = torch.tensor([size[1], size[0], size[1], size[0]])
        assert ((found.boxes >= 0) & (found.boxes <= limits)).all()
    assert detectors.loss(PairBatch(first, second, batch_of(first, second).objects)).isfinite()


@torch.no_grad()
def test_attention_alone_is_the_same_and_leaves_the_detectors_whole():
    detectors = make()
    first, second = pair(70, 50)
    before = detectors.predict(first, second)
    alone = detectors.attention_alone()
    assert torch.equal(alone.attention(first, second), detectors.attention(first, second))
    assert torch.equal(detectors.predict(first, second)[0].boxes, before[0].boxes)
    sizes = [sum(parameter.numel() for parameter in each.parameters()) for each in (detectors, alone)]
    assert 10 * sizes[1] < sizes[0]


def test_it_looks_as_far_as_it_says():
    network = for_inference(make(8).double().attention_alone())
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):  # where it is zero, nothing has an influence
                setattr(module, name, nn.Identity())
    centre = 32
    images = pair(64, 64, 1).double().requires_grad_()
    attention = network.attention(*images)
    distances = []
    for pixel in range(centre, centre + 4):
        (gradient,) = torch.autograd.grad(attention[0, 0, pixel, pixel], images, retain_graph=True)
        for axis in (-1, -2):
            touched = gradient.abs().movedim(axis, 0).flatten(1).sum(1).nonzero()
            distances += [pixel - touched.min().item(), touched.max().item() - pixel]
    assert max(distances) == network.reach == 16


@torch.no_grad()
def test_the_answers_of_both_detectors_are_averaged(monkeypatch):
    detectors = make()
    first, second = pair(64, 64, 1)
    logits = torch.full((2, 1, 2, 16, 16), -9.0)
    logits[0, 0, 1, 6, 8], logits[1, 0, 1, 6, 8] = 1.0, 3.0
    sides = torch.stack([torch.full((1, 4, 16, 16), side) for side in (4.0, 16.0)])
    answers = {detectors.first: (logits[0], sides[0]), detectors.second: (logits[1], sides[1])}
    monkeypatch.setattr(CompactDetector, "maps", lambda detector, levels: answers[detector])
    (found,) = detectors.predict(first, second)
    assert found.scores[0].item() == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert found.classes[0] == 1
    torch.testing.assert_close(found.boxes[0], torch.tensor([34.0 - 8, 26.0 - 8, 34.0 + 8, 26.0 + 8]))


@torch.no_grad()
def test_predictions_read_the_refined_pyramids(monkeypatch):
    detectors = make()
    first, second = pair()
    seen = seen_by_the_heads(monkeypatch)
    detectors.predict(first, second)
    expected = detectors.shared(detectors.first.pyramid(first), detectors.second.pyramid(second))
    assert [detector for detector, _ in seen] == [detectors.first, detectors.second]
    for (_, levels), attended in zip(seen, expected, strict=True):
        assert all(map(torch.equal, levels, attended.levels))


@torch.no_grad()
def test_kept_detectors_come_back_frozen(tmp_path):
    detectors = make().train()
    keep_guiding_detectors(detectors, tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        "detectors/specification.yaml",
        "detectors/weights.safetensors",
    }
    loaded = load_guiding_detectors(tmp_path)
    assert loaded.specification() == detectors.specification()
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    first, second = pair()
    assert torch.equal(loaded.attention(first, second), detectors.eval().attention(first, second))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("kind: guiding-detectors", "kind: compact-detector", "kind must be guiding-detectors, not 'compact-detector'"),
        ("classes: [person, car]", "classes: []", "classes must be a list of names"),
        ("classes: [person, car]", "classes: person", "classes must be a list of names"),
        ("classes: [person, car]", "classes: [person]", "belong to another architecture"),
        ("width: 4", "width: 6", "belong to another architecture"),
        ("width: 4", "width: 1", "width must be a whole number from 2 on, like 32, not 1"),
        ("width: 4", "width: true", "width must be a whole number"),
        ("width: 4", "depth: 4", "width must be a whole number from 2 on, like 32, not None"),
        ("width: 4", "width: [4", "not valid YAML"),
    ],
)
def test_a_broken_specification_is_told_where(tmp_path, old, new, told):
    keep_guiding_detectors(make(), tmp_path)
    path = tmp_path / "detectors" / "specification.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError) as error:
        load_guiding_detectors(tmp_path)
    assert told in str(error.value)
    assert str(path.parent) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_missing(tmp_path):
    with pytest.raises(UserError, match="no guiding detectors: "):
        load_guiding_detectors(tmp_path)
    keep_guiding_detectors(make(), tmp_path)
    (tmp_path / "detectors" / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights file .*detectors"):
        load_guiding_detectors(tmp_path)
    (tmp_path / "detectors" / "specification.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        load_guiding_detectors(tmp_path)
