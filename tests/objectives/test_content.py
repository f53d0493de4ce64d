"""The object-aware content loss against loops over pixels, and faults of the released code that it must not have."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from timfuse.objectives import object_content_loss
from timfuse.objectives.content import covered_pixels


def images(*shape, seed=0):
    return torch.rand(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def boxes_of(*corners):
    return torch.tensor(corners, dtype=torch.float32).view(-1, 4)


def by_pixels(fused, first, second, boxes):
    """The definition, pixel by pixel."""
    inside, outside = [], []
    samples, _, height, width = fused.shape
    for n in range(samples):
        for row in range(height):
            for column in range(width):
                f, a, b = (image[n, 0, row, column].item() for image in (fused, first, second))
                hit = any(
                    left <= column + 0.5 < right and top <= row + 0.5 < bottom
                    for left, top, right, bottom in boxes[n].tolist()
                )
                if hit:
                    inside.append(abs(f - max(a, b)))
                else:
                    outside.append(abs(f - (a + b) / 2))
    return sum(sum(each) / len(each) for each in (inside, outside) if each)


coordinates = st.floats(-8, 20, width=32) | st.integers(-8, 20) | st.integers(-16, 40).map(lambda half: half / 2)
corners = st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), max_size=4)


@given(first=corners, second=corners, height=st.integers(1, 13), width=st.integers(1, 13))
def test_the_definition_for_boxes_inside_outside_and_overlapping(first, second, height, width):
    boxes = [
        boxes_of(*[(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in found]) for found in (first, second)
    ]
    pair = images(2, 1, height, width)
    assert object_content_loss(*pair, boxes).item() == pytest.approx(by_pixels(*pair, boxes), rel=1e-9, abs=1e-12)


def test_it_is_zero_at_its_target_alone():
    _, first, second = images(1, 1, 24, 32)
    boxes = [boxes_of((4, 5, 20, 12))]
    inside = torch.zeros(1, 1, 24, 32, dtype=torch.bool)
    inside[..., 5:12, 4:20] = True
    target = torch.where(inside, torch.maximum(first, second), (first + second) / 2)
    assert object_content_loss(target, first, second, boxes) == 0
    assert object_content_loss(target + 0.1, first, second, boxes).item() == pytest.approx(0.2)


@pytest.mark.parametrize(("box", "covered"), [
    ((0, 0, 3, 2), 6),
    ((0.5, 0.5, 3.5, 2.5), 6),  # centres on the left and upper edge are in, on the others out
    ((0.6, 0.4, 3.4, 2.6), 6),
    ((0.6, 0.6, 1.4, 1.4), 0),
    ((-5, -5, 1.6, 100), 20),
])  # fmt: skip
def test_a_pixel_is_inside_where_its_centre_is(box, covered):
    assert covered_pixels([boxes_of(box)], 10, 12).sum() == covered


# The faults of the released DetFusion.


def test_boxes_are_not_changed():
    boxes = [boxes_of((1, 2, 30, 12), (-4, -4, 500, 700)), boxes_of()]
    before = [each.clone() for each in boxes]
    object_content_loss(*images(2, 1, 24, 32), boxes)
    assert all(torch.equal(each, same) for each, same in zip(boxes, before, strict=True))


@pytest.mark.parametrize("shape", [(97, 131), (480, 640), (1, 1), (768, 1024)])
def test_any_size(shape):
    height, width = shape
    inside = covered_pixels([boxes_of((width - 0.9, height - 0.9, width, height))], height, width)
    assert inside.shape == (1, 1, height, width)
    assert inside.nonzero().tolist() == [[0, 0, height - 1, width - 1]]


def test_objects_that_reach_outside_count_with_what_is_inside():
    whole = covered_pixels([boxes_of((-20, 5, 8, 40))], 24, 32)
    assert torch.equal(whole, covered_pixels([boxes_of((0, 5, 8, 24))], 24, 32))
    assert not covered_pixels([boxes_of((40, 30, 60, 50))], 24, 32).any()


def test_where_objects_overlap_pixels_count_once():
    pair = images(1, 1, 24, 32)
    once = object_content_loss(*pair, [boxes_of((4, 5, 20, 12))])
    again = object_content_loss(*pair, [boxes_of((4, 5, 15, 12), (4, 5, 20, 12), (10, 6, 20, 12))])
    assert torch.equal(once, again)


def test_a_small_object_weighs_as_much_as_all_the_rest():
    zeros = torch.zeros(1, 1, 512, 640)
    boxes = [boxes_of((100, 200, 132, 232))]
    inside = covered_pixels(boxes, 512, 640)
    assert inside.sum() == 32 * 32
    for region in (inside, ~inside):
        assert object_content_loss(region.float(), zeros, zeros, boxes).item() == pytest.approx(1, rel=1e-6)
    fused = torch.full_like(zeros, 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(object_content_loss(fused, zeros, zeros, boxes), fused)
    assert gradient[inside].sum().item() == pytest.approx(gradient[~inside].sum().item(), rel=1e-5)


def test_images_without_objects_and_without_surroundings():
    fused, first, second = images(2, 1, 6, 7)
    none, everything = boxes_of(), boxes_of((0, 0, 7, 6))
    mean, brighter = (fused - (first + second) / 2).abs(), (fused - torch.maximum(first, second)).abs()
    for boxes, expected in (
        ([none, none], mean.mean()),
        ([everything, everything], brighter.mean()),
        ([none, everything], mean[0].mean() + brighter[1].mean()),
    ):
        torch.testing.assert_close(object_content_loss(fused, first, second, boxes), expected)


class _Calls(TorchDispatchMode):
    """Counts what torch is asked to do."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += 1
        return function(*arguments, **(options or {}))


def test_no_loop_over_boxes():
    counts = set()
    for number in (0, 1, 7, 200):
        generator = torch.Generator().manual_seed(number)
        corner = 40 * torch.rand(number, 2, generator=generator)
        boxes = [torch.cat((corner, corner + 10), 1), torch.zeros(0, 4)]
        with _Calls() as calls:
            object_content_loss(*images(2, 1, 48, 64), boxes)
        counts.add(calls.count)
    assert len(counts) == 1
