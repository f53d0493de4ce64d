"""The compact detector: its maps, its losses, how it is made anew, and that it learns scenes by heart."""

import pytest
import torch
from torch import nn

from timfuse.data import Objects, PairBatch, make_scene, unit_range
from timfuse.data.synthetic import SCENE_CLASSES
from timfuse.downstream import CompactDetector, build_task_network, score_detections
from timfuse.downstream.compact_detector import STRIDE, padded
from timfuse.downstream.heatmaps import box_loss, focal_loss, make_targets
from timfuse.runtime.errors import UserError

CLASSES = ("person", "bicycle", "car")
SIZES = [(64, 96), (1, 1), (33, 31), (45, 70)]


def make(width=4, seed=0):
    """A detector with statistics as after a training, in evaluation mode."""
    torch.manual_seed(seed)
    detector = CompactDetector(CLASSES, width)
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.uniform_(-0.5, 0.5)
    with torch.no_grad():
        detector.maps(detector.pyramid(noise(64, 64)))
    for norm in norms:
        norm.momentum = 0.1
    return detector.eval()


def noise(height, width, samples=2, seed=0):
    return torch.rand(samples, 1, height, width, generator=torch.Generator().manual_seed(seed))


def batch_of(images, *boxes):
    """A batch whose first image holds the boxes (left, top, right, bottom, class) and the others nothing."""
    table = torch.tensor(boxes, dtype=torch.float32).view(-1, 5)
    empty = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    objects = (Objects(table[:, :4], table[:, 4].long()), *[empty] * (len(images) - 1))
    return PairBatch(images, images, objects)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_padding_repeats_the_last_pixels_up_to_multiples_of_32(height, width):
    images = noise(height, width)
    grown = padded(images)
    assert grown.shape[-2:] == (-(-height // 32) * 32, -(-width // 32) * 32)
    rows, columns = torch.arange(grown.shape[-2]).clamp_max(height - 1), torch.arange(grown.shape[-1])
    assert torch.equal(grown, images[:, :, rows][..., columns.clamp_max(width - 1)])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_shapes_of_the_pyramid_and_of_the_maps(height, width):
    detector = make(6)
    levels = detector.pyramid(padded(noise(height, width)))
    tall, wide = -(-height // 32) * 32, -(-width // 32) * 32
    assert [tuple(level.shape) for level in levels] == [(2, 9, tall // s, wide // s) for s in (4, 8, 16, 32)]
    logits, sides = detector.maps(levels)
    assert logits.shape == (2, 3, tall // STRIDE, wide // STRIDE)
    assert sides.shape == (2, 4, tall // STRIDE, wide // STRIDE)
    assert (sides > 0).all()


@pytest.mark.parametrize("width", [2, 3, 5, 8])
def test_any_width_from_two_on_and_the_channels_of_the_stages(width):
    detector = CompactDetector(CLASSES, width)
    assert [stage[0][0].out_channels for stage in detector.stages] == [width, 2 * width, 3 * width, 4 * width]
    assert detector.features == width * 3 // 2
    assert detector.loss(noise(32, 32), batch_of(noise(32, 32), (2, 2, 20, 20, 0))).isfinite()


def test_a_fresh_detector_hardly_believes_in_objects():
    detector = CompactDetector(CLASSES, 8)
    logits, _ = detector.maps(detector.pyramid(noise(64, 64)))
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.5)
    assert all((found.scores < 0.2).all() for found in detector.eval().predict(noise(64, 64)))


def test_middle_grey_shows_nothing():
    detector = CompactDetector(CLASSES, 4).eval()
    levels = detector.pyramid(torch.full((1, 1, 64, 64), 0.5))
    for level, lateral in zip(levels, detector.laterals, strict=True):
        assert torch.equal(level, lateral.bias.view(1, -1, 1, 1).expand_as(level))


def test_the_loss_is_that_of_its_maps():
    detector = make()
    images = noise(45, 70)
    batch = batch_of(images, (3, 4, 30, 41, 2), (40, 10, 69, 20, 0))
    logits, sides = detector.maps(detector.pyramid(padded(images)))
    targets = make_targets(batch.objects, 3, *logits.shape[-2:], STRIDE)
    expected = focal_loss(logits, targets.heat, targets.number) + 5 * box_loss(sides, targets)
    torch.testing.assert_close(detector.loss(images, batch), expected)


def test_the_loss_looks_at_the_images_and_not_at_the_sources_of_the_batch():
    detector = make()
    images = noise(64, 64)
    batch = batch_of(images, (3, 4, 30, 41, 2))
    others = batch._replace(first=noise(64, 64, seed=1), second=noise(64, 64, seed=2))
    assert detector.loss(images, batch) == detector.loss(images, others)
    assert detector.loss(images, batch) != detector.loss(others.first, batch)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("boxes", [[], [(3, 4, 30, 41, 2), (50, 20, 52, 21, 0)]])
def test_the_loss_is_differentiable_by_images_and_weights_with_objects_and_without(boxes, training):
    detector = make().train(training)
    images = noise(45, 70).requires_grad_()
    loss = detector.loss(images, batch_of(images, *boxes))
    assert loss.shape == ()
    assert loss.isfinite()
    assert loss > 0
    loss.backward()
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1).abs().amax(1) > 0).all()
    for name, parameter in detector.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # Without objects there are no sides to learn.
        assert parameter.grad.any() == bool(boxes or not name.startswith("sides")), name


def test_the_gradient_by_an_image():
    detector = make(2).double()
    image = noise(32, 32, samples=1).double()
    batch = batch_of(image, (3, 4, 30, 21, 2), (5, 20, 12, 31, 0))
    (gradient,) = torch.autograd.grad(detector.loss(image.requires_grad_(), batch), image)
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        ahead, behind = (detector.loss(image + step * direction, batch) for step in (1e-7, -1e-7))
    assert ((ahead - behind) / 2e-7).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_prediction_leaves_the_detector_and_the_images_as_they_are():
    detector, images = make(), noise(45, 70)
    kept, seen = {name: value.clone() for name, value in detector.state_dict().items()}, images.clone()
    together = detector.predict(images)
    assert torch.equal(images, seen)
    assert all(torch.equal(value, kept[name]) for name, value in detector.state_dict().items())
    for image, found in zip(images, together, strict=True):
        (alone,) = detector.predict(image[None])
        torch.testing.assert_close(alone.scores, found.scores)
        assert len(found.scores) <= 100
        assert not found.scores.requires_grad
        assert (found.boxes[:, 2] <= 70).all()
        assert (found.boxes[:, 3] <= 45).all()


def test_maps_move_with_the_image():
    # Far from the borders, whose zeros reach 240 pixels into the maps.
    detector = make(2).double()
    whole = noise(640, 640, samples=1).double()
    with torch.no_grad():
        here, there = (detector.maps(detector.pyramid(image)) for image in (whole, whole.roll((32, -32), (-2, -1))))
    middle = slice(72, 88)
    for before, after in zip(here, there, strict=True):
        before, after = before[..., middle, middle], after[..., 80:96, 64:80]
        assert before.std() > 1e-3
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_a_detector_made_anew_has_the_same_shape():
    detector = CompactDetector(("person", "car"), 6)
    specification = detector.specification()
    assert specification == {"kind": "compact-detector", "classes": ["person", "car"], "width": 6}
    other = CompactDetector.from_specification(specification)
    assert (other.classes, other.width, other.task) == (("person", "car"), 6, "detection")
    other.load_state_dict(detector.state_dict())
    images = noise(32, 64)
    assert torch.equal(other.eval().predict(images)[0].boxes, detector.eval().predict(images)[0].boxes)


@pytest.mark.parametrize("classes", [None, [], "person", ["person", 3], ["person", ""], {"person": 0}])
def test_bad_classes(classes):
    with pytest.raises(UserError, match=r"classes must be a list of names, like \[person, car\], not "):
        CompactDetector.from_specification({"classes": classes, "width": 8})


@pytest.mark.parametrize("width", [None, 1, 0, -8, 8.0, "8", True])
def test_bad_widths(width):
    with pytest.raises(UserError, match="width must be a whole number from 2 on, like 32, not "):
        CompactDetector.from_specification({"classes": ["person"], "width": width})


@pytest.mark.rounding
@pytest.mark.slow
def test_ten_scenes_are_learnt_by_heart():
    scenes = [make_scene(seed) for seed in range(10, 20)]
    first, second = (
        torch.stack([torch.from_numpy(unit_range(image))[None] for image in images])
        for images in zip(*((scene.first, scene.second) for scene in scenes), strict=True)
    )
    objects = tuple(Objects(torch.from_numpy(scene.boxes), torch.from_numpy(scene.classes)) for scene in scenes)
    batch, images = PairBatch(first, second, objects), (first + second) / 2
    torch.manual_seed(0)
    detector = CompactDetector(SCENE_CLASSES, 16)
    optimizer = torch.optim.Adam(detector.parameters(), lr=0.005)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [120], 0.2)
    for _ in range(160):
        optimizer.zero_grad()
        detector.loss(images, batch).backward()
        optimizer.step()
        schedule.step()
    scores = score_detections(detector.eval().predict(images), objects, SCENE_CLASSES, [(128, 128)] * 10)
    assert scores.ap50 >= 0.95


@torch.no_grad()
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_start_that_sees_luma_serves_several_planes(channels):
    """Equal planes give what luma gave."""
    luma = build_task_network("detection", "compact", CLASSES, width=24, init="street").eval()
    other = build_task_network("detection", "compact", CLASSES, width=24, init="street", channels=channels).eval()
    image = noise(64, 96)
    expected, found = luma.maps(luma.pyramid(image)), other.maps(other.pyramid(image.expand(-1, channels, -1, -1)))
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)
    assert CompactDetector.from_specification(other.specification()).channels == channels
    assert "channels" not in luma.specification()
