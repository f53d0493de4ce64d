"""Heat maps: targets in closed form and by loops, the losses against plain formulas, and peaks back to boxes."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from timfuse.data.pair_batch import Objects
from timfuse.downstream.heatmaps import Targets, box_loss, find_peaks, focal_loss, make_targets

STRIDE = 4
HEIGHT, WIDTH = 16, 20  # cells
CORE = 0.54  # of TTFNet


def objects(*rows, dtype=torch.float64):
    """Make the objects of an image of rows (left, top, right, bottom, class)."""
    table = torch.tensor(rows, dtype=dtype).view(-1, 5)
    return Objects(table[:, :4].clone(), table[:, 4].long())


def targets_of(*images, classes=3, height=HEIGHT, width=WIDTH):
    return make_targets(images, classes, height, width, STRIDE)


def targets_by_loops(image, classes):
    """The maps of one image, cell by cell."""
    heat = [[[0.0] * WIDTH for _ in range(HEIGHT)] for _ in range(classes)]
    owners = {}  # by cell, the area of the box that owns it so far, its number, its bump and the distances to its sides
    for number, (box, kind) in enumerate(zip(image.boxes.tolist(), image.classes.tolist(), strict=True)):
        left, top, right, bottom = box
        wide, tall = right - left, bottom - top
        peak_row, peak_column = int((top + bottom) / 2 // STRIDE), int((left + right) / 2 // STRIDE)
        sigma_y, sigma_x = max(CORE * tall, STRIDE) / 6, max(CORE * wide, STRIDE) / 6
        for row in range(HEIGHT):
            for column in range(WIDTH):
                down, across = (row - peak_row) * STRIDE, (column - peak_column) * STRIDE
                bump = math.exp(-(down**2) / (2 * sigma_y**2) - across**2 / (2 * sigma_x**2))
                heat[kind][row][column] = max(heat[kind][row][column], bump)
                inside = abs(down) <= 3 * sigma_y and abs(across) <= 3 * sigma_x
                claim = (down, across) != (0, 0), wide * tall  # first whose peak it is, then the smaller
                if inside and claim < owners.get((row, column), ((True, math.inf),))[0]:
                    y, x = (row + 0.5) * STRIDE, (column + 0.5) * STRIDE
                    owners[row, column] = claim, number, bump, [x - left, y - top, right - x, bottom - y]
    totals = Counter()
    for _, number, bump, _ in owners.values():
        totals[number] += bump
    sides, weight = torch.zeros(4, HEIGHT, WIDTH).double(), torch.zeros(HEIGHT, WIDTH).double()
    for (row, column), (_, number, bump, distances) in owners.items():
        sides[:, row, column] = torch.tensor(distances, dtype=torch.float64)
        weight[row, column] = bump / totals[number]
    return torch.tensor(heat, dtype=torch.float64), sides, weight


@st.composite
def images(draw, most=6, classes=3):
    """The objects of an image of any sizes, none of them as large as another."""
    count, rows = draw(st.integers(0, most)), []
    for _ in range(count):
        left, top = (draw(st.integers(0, 4 * STRIDE * size - 1)) / 4 for size in (WIDTH, HEIGHT))
        right = left + draw(st.integers(1, int(4 * (STRIDE * WIDTH - left)))) / 4
        bottom = top + draw(st.integers(1, int(4 * (STRIDE * HEIGHT - top)))) / 4
        rows.append((left, top, right, bottom, draw(st.integers(0, classes - 1))))
    areas = [(right - left) * (bottom - top) for left, top, right, bottom, _ in rows]
    assume(len(set(areas)) == len(areas))  # of two boxes alike, either may own a cell
    return objects(*rows)


def test_one_box_in_closed_form():
    heat, sides, weight, count = targets_of(objects((8, 12, 40, 28, 1)))
    assert (heat.shape, sides.shape, weight.shape) == ((1, 3, HEIGHT, WIDTH), (1, 4, HEIGHT, WIDTH), (1, HEIGHT, WIDTH))
    assert heat.dtype == sides.dtype == weight.dtype == torch.float64
    assert count.item() == 1
    # The centre (24, 20) lies in the cell of row 5 and column 6, whose centre is (26, 22).
    bump = heat[0, 1]
    assert (heat == 1).nonzero().tolist() == [[0, 1, 5, 6]]
    sigma_x, sigma_y = CORE * 32 / 6, CORE * 16 / 6
    for down, across in ((0, 1), (0, -2), (1, 0), (-1, 2), (2, -3)):
        expected = math.exp(-((4 * down) ** 2) / (2 * sigma_y**2) - (4 * across) ** 2 / (2 * sigma_x**2))
        assert bump[5 + down, 6 + across].item() == pytest.approx(expected, rel=1e-12)
    assert not heat[0, [0, 2]].any()
    # Of 8.64 and 4.32 pixels to both sides: two columns and one row.
    assert (weight > 0).nonzero()[:, 1:].tolist() == [[row, column] for row in (4, 5, 6) for column in range(4, 9)]
    assert sides[0, :, 5, 6].tolist() == [18, 10, 14, 6]
    assert sides[0, :, 4, 8].tolist() == [26, 6, 6, 10]
    assert not sides[0, :, weight[0] == 0].any()
    assert weight.sum().item() == pytest.approx(1)
    assert (weight[0, 4, 8] / weight[0, 5, 6]).item() == pytest.approx(bump[4, 8].item())


@settings(max_examples=25)
@given(image=images())
@example(image=objects())
def test_all_maps_are_those_of_loops_over_boxes_and_cells(image):
    heat, sides, weight, count = targets_of(image)
    for found, expected in zip((heat, sides, weight), targets_by_loops(image, 3), strict=True):
        torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=1e-14)
    assert count.item() == max(1, len(image.classes))


@given(image=images())
def test_the_peaks_are_the_cells_of_the_centres_and_nothing_is_higher(image):
    heat = targets_of(image).heat[0]
    assert heat.min() >= 0
    assert heat.max() <= 1
    centres = ((image.boxes[:, :2] + image.boxes[:, 2:]) / 2 / STRIDE).floor().long()
    expected = {
        (kind, row, column) for kind, (column, row) in zip(image.classes.tolist(), centres.tolist(), strict=True)
    }
    assert set(map(tuple, (heat == 1).nonzero().tolist())) == expected


@given(image=images(), data=st.data())
def test_the_order_of_the_boxes_does_not_matter(image, data):
    order = torch.tensor(data.draw(st.permutations(range(len(image.classes)))), dtype=torch.int64)
    shuffled = Objects(image.boxes[order], image.classes[order])
    for found, expected in zip(targets_of(shuffled), targets_of(image), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@settings(max_examples=25)
@given(batch=st.lists(images(most=4), min_size=1, max_size=4))
def test_an_image_does_not_see_the_others_of_its_batch(batch):
    together = targets_of(*batch)
    for place, image in enumerate(batch):
        alone = targets_of(image)
        for name in ("heat", "sides", "weight"):
            torch.testing.assert_close(getattr(together, name)[place], getattr(alone, name)[0], rtol=1e-12, atol=0)
    assert together.number.item() == max(1, sum(len(image.classes) for image in batch))


def test_the_smaller_of_two_boxes_owns_the_cells_that_both_claim():
    large, small = (4, 4, 60, 60, 0), (32, 28, 48, 44, 0)
    alone = targets_of(objects(large))
    _, sides, weight, count = targets_of(objects(large, small))
    assert count.item() == 2
    # The small box's centre (40, 36) lies in row 9, column 10; 4.32 pixels from there are one cell to each side.
    mine = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mine[8:11, 9:12] = True
    assert sides[0, :, 9, 10].tolist() == [10, 10, 6, 6]
    torch.testing.assert_close(sides[0][:, ~mine], alone.sides[0][:, ~mine])
    assert weight[0, mine].sum().item() == pytest.approx(1)
    rest = alone.weight[0, ~mine]
    torch.testing.assert_close(weight[0, ~mine], rest / rest.sum())


def test_two_classes_at_one_place_have_a_bump_each():
    both = targets_of(objects((8, 8, 40, 40, 0), (12, 12, 36, 36, 2)))
    for kind, box in ((0, (8, 8, 40, 40, 0)), (2, (12, 12, 36, 36, 2))):
        torch.testing.assert_close(both.heat[:, kind], targets_of(objects(box)).heat[:, kind])
    assert not both.heat[:, 1].any()
    assert (both.heat == 1).nonzero().tolist() == [[0, 0, 6, 6], [0, 2, 6, 6]]


def test_images_without_objects_are_empty():
    for batch in ([objects()], [objects(), objects()], [objects(), objects((8, 8, 40, 40, 0)), objects()]):
        heat, sides, weight, count = targets_of(*batch)
        assert count.item() == 1
        for each in (heat, sides, weight):
            assert each.isfinite().all()
            assert not each[0].any()
            assert not each[-1].any()
    logits = torch.randn(1, 3, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    empty = targets_of(objects())
    assert box_loss(torch.rand(1, 4, HEIGHT, WIDTH).double(), empty).item() == 0
    (gradient,) = torch.autograd.grad(focal_loss(logits, empty.heat, empty.number), logits)
    assert (gradient > 0).all()  # all that is left to learn is that there is nothing


@pytest.mark.parametrize(
    ("box", "cell"),
    [
        ((0, 0, 80, 64), (8, 10)),  # the whole image
        ((0, 0, 3, 3), (0, 0)),
        ((79, 63, 80, 64), (15, 19)),
        ((0, 60, 80, 64), (15, 10)),
        ((76, 0, 80, 64), (8, 19)),
        ((80, 64, 80, 64), (15, 19)),  # on the corner itself, where there is no cell any more
    ],
)
def test_boxes_at_borders(box, cell):
    heat, sides, weight, _ = targets_of(objects((*box, 0)))
    assert (heat[0, 0] == 1).nonzero().tolist() == [list(cell)]
    assert weight.sum().item() == pytest.approx(1)
    row, column = cell
    y, x = (row + 0.5) * STRIDE, (column + 0.5) * STRIDE
    assert sides[0, :, row, column].tolist() == [x - box[0], y - box[1], box[2] - x, box[3] - y]


def test_a_box_smaller_than_a_cell_has_one_cell():
    heat, sides, weight, _ = targets_of(objects((8.5, 9, 9.5, 11, 2)))
    assert weight[0].nonzero().tolist() == [[2, 2]]
    assert weight[0, 2, 2].item() == 1
    assert sides[0, :, 2, 2].tolist() == [1.5, 1, -0.5, 1]  # the cell's centre (10, 10) is right of the box
    assert heat[0, 2, 2, 3].item() == pytest.approx(math.exp(-18), rel=1e-12)  # its bump is as wide as a cell's
    perfect = box_loss(sides, Targets(heat, sides, weight, torch.tensor(1.0)))
    assert perfect.item() == pytest.approx(0, abs=1e-12)


def test_the_boxes_given_stay_as_they_are():
    batch = [objects((8.5, 9, 90, 100, 2), (-3, -2, 4, 5, 0)), objects(), objects((1, 2, 30, 40, 1))]
    kept = [Objects(each.boxes.clone(), each.classes.clone()) for each in batch]
    targets = targets_of(*batch)
    box_loss(targets.sides + 1, targets)
    for each, before in zip(batch, kept, strict=True):
        assert torch.equal(each.boxes, before.boxes)
        assert torch.equal(each.classes, before.classes)


class Calls(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += 1
        return function(*arguments, **(keywords or {}))


def test_the_number_of_torch_calls_does_not_grow_with_the_number_of_boxes():
    counts = []
    for most in (2, 60):
        corners = torch.rand(most, 2, dtype=torch.float64) * 40
        image = Objects(torch.cat((corners, corners + 8), 1), torch.arange(most) % 3)
        with Calls() as calls:
            targets = targets_of(image, image)
            box_loss(targets.sides.abs() + 1, targets)
            find_peaks(targets.heat, targets.sides, STRIDE, 64, 80, 100)
        counts.append(calls.count)
    assert counts[0] == counts[1]


def test_focal_loss_is_the_sum_of_a_plain_formula():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64, generator=generator)
    targets = targets_of(objects((8, 12, 40, 28, 1), (30, 30, 60, 50, 1)), objects((1, 2, 3, 4, 0)))
    total = 0.0
    for logit, y in zip(logits.flatten().tolist(), targets.heat.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        total -= (1 - p) ** 2 * math.log(p) if y == 1 else (1 - y) ** 4 * p**2 * math.log(1 - p)
    assert focal_loss(logits, targets.heat, targets.number).item() == pytest.approx(total / 3, rel=1e-10)


def test_focal_loss_far_off_and_at_its_goal():
    heat = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    one = torch.tensor(1.0)
    for size in (100.0, 1e4):
        wrong = torch.tensor([-size, size]).view(1, 1, 1, 2).requires_grad_()
        loss = focal_loss(wrong, heat, one)
        assert loss.item() == pytest.approx(2 * size)
        loss.backward()
        torch.testing.assert_close(wrong.grad.flatten(), torch.tensor([-1.0, 1.0]))
        assert focal_loss(-wrong, heat, one).item() == 0


def test_the_gradient_of_the_focal_loss():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 3, 5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = targets_of(objects((2, 3, 12, 14, 1), (13, 6, 20, 19, 2)), height=5, width=6)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets.heat, targets.number), logits)


def giou(one, other):
    """Of two boxes by their corners."""
    tall = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    wide = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    hull = (max(one[2], other[2]) - min(one[0], other[0])) * (max(one[3], other[3]) - min(one[1], other[1]))
    union = sum(areas) - tall * wide
    return tall * wide / union - (hull - union) / hull


@settings(max_examples=25)
@given(batch=st.lists(images(most=4), min_size=1, max_size=3), seed=st.integers(0, 99), scale=st.sampled_from([1, 30]))
def test_box_loss_is_a_sum_over_cells(batch, seed, scale):
    targets = targets_of(*batch)
    generator = torch.Generator().manual_seed(seed)
    sides = scale * torch.rand(len(batch), 4, HEIGHT, WIDTH, dtype=torch.float64, generator=generator) + 0.01
    total = 0.0
    for place, row, column in targets.weight.nonzero().tolist():
        x, y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
        boxes = [
            (x - left, y - top, x + right, y + bottom)
            for left, top, right, bottom in (each[place, :, row, column].tolist() for each in (sides, targets.sides))
        ]
        total += targets.weight[place, row, column].item() * (1 - giou(*boxes))
    loss = box_loss(sides, targets).item()
    assert loss == pytest.approx(total / targets.number.item(), rel=1e-9, abs=1e-12)
    assert 0 <= loss <= 2
    assert box_loss(targets.sides, targets).item() == pytest.approx(0, abs=1e-9)


def test_box_loss_by_hand():
    # One cell with its centre at (2, 2): a box of 2 x 2 around it, and one of 4 x 2 that holds it; then one far away.
    weight, count = torch.ones(1, 1, 1).double(), torch.tensor(1.0).double()
    true = torch.tensor([1.0, 1, 1, 1]).double().view(1, 4, 1, 1)
    held = torch.tensor([3.0, 1, 1, 1]).double().view(1, 4, 1, 1)
    assert box_loss(held, Targets(true, true, weight, count)).item() == pytest.approx(1 - 4 / 8)
    away = torch.tensor([-2.0, 1, 4, 1]).double().view(1, 4, 1, 1)  # no overlap, a hull of 5 x 2 around 4 and 4
    assert box_loss(true, Targets(true, away, weight, count)).item() == pytest.approx(1 + (10 - 8) / 10)


def test_the_gradient_of_the_box_loss():
    generator = torch.Generator().manual_seed(2)
    sides = (12 * torch.rand(1, 4, 5, 6, dtype=torch.float64, generator=generator) + 0.1).requires_grad_()
    targets = targets_of(objects((2, 3, 12, 14, 1), (13, 6, 20, 19, 2), (21, 1, 22, 2, 0)), height=5, width=6)
    assert torch.autograd.gradcheck(lambda x: box_loss(x, targets), sides)
    (gradient,) = torch.autograd.grad(box_loss(sides, targets), sides)
    assert ((gradient != 0).any(1) == (targets.weight > 0)).all()


@st.composite
def separated(draw):
    """The objects of an image of 128 x 160 pixels, at most one in each square of 32, none of which reaches out."""
    rows = []
    for place in draw(st.sets(st.integers(0, 19), max_size=12)):
        left, top = (32 * corner + draw(st.integers(0, 4 * 28)) / 4 for corner in (place % 5, place // 5))
        right, bottom = (corner + draw(st.integers(1, int(4 * (28 - corner % 32)) + 12)) / 4 for corner in (left, top))
        rows.append((left, top, right, bottom, draw(st.integers(0, 2))))
    return objects(*rows)


@given(image=separated(), bumps=st.booleans())
def test_the_peaks_of_targets_are_the_boxes(image, bumps):
    targets = targets_of(image, objects(), height=32, width=40)
    logits = targets.heat.logit() if bumps else torch.where(targets.heat == 1, 20.0, -torch.inf)
    # Two peaks of one class in neighbouring cells are one.
    for kind in range(3):
        cells = (targets.heat[0, kind] == 1).nonzero().double()
        assume(len(cells) < 2 or torch.pdist(cells, p=torch.inf).min() > 1)
    found, nothing = find_peaks(logits, targets.sides, STRIDE, 128, 160, 100)
    expected = sorted(zip(image.boxes.tolist(), image.classes.tolist(), strict=True))
    assert sorted(zip(found.boxes.tolist(), found.classes.tolist(), strict=True)) == expected
    assert (found.scores > 0.99).all()
    assert len(nothing.scores) == 0


def maps(logits, side=6.0):
    """Maps of one class with boxes of one size."""
    logits = torch.as_tensor(logits, dtype=torch.float64)[None, None]
    return logits, torch.full((1, 4, *logits.shape[-2:]), side, dtype=torch.float64)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("rows", "columns"), [((2, 3), (2, 3)), ((0, 1), (0, 6)), ((1, 5), (2, 5)), ((5, 6), (7, 8))])
def test_a_plateau_is_one_peak(rows, columns, layout):
    logits, sides = maps(torch.full((6, 8), -torch.inf))
    logits[..., slice(*rows), slice(*columns)] = 2.0
    (found,) = find_peaks(logits.contiguous(memory_format=layout), sides, STRIDE, 24, 32, 100)
    assert len(found.scores) == 1
    row, column = rows[0], columns[0]
    assert found.boxes[0, :2].tolist() == [max(0, column * 4 + 2 - 6), max(0, row * 4 + 2 - 6)]


def test_peaks_that_are_certain_are_still_told_apart():
    logits, sides = maps(torch.full((6, 8), -9.0))
    logits[0, 0, 2, 2:5] = torch.tensor([50.0, 60.0, 50.0])  # the sigmoid of all three is 1
    (found,) = find_peaks(logits.float(), sides.float(), STRIDE, 24, 32, 1)
    assert found.boxes.tolist() == [[8, 4, 20, 16]]


def test_neighbours_compete_within_a_class_only():
    logits = torch.full((1, 2, 6, 8), -9.0, dtype=torch.float64)
    logits[0, 0, 2, 2], logits[0, 0, 3, 3], logits[0, 1, 3, 3] = 3.0, 2.0, 1.0
    sides = torch.full((1, 4, 6, 8), 6.0, dtype=torch.float64)
    (found,) = find_peaks(logits, sides, STRIDE, 24, 32, 2)
    assert found.classes.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([3.0, 1.0]).double().sigmoid())
    assert found.boxes.tolist() == [[4, 4, 16, 16], [8, 8, 20, 20]]


@given(seed=st.integers(0, 99), limit=st.integers(1, 30))
def test_the_best_come_first_and_no_more_than_the_limit(seed, limit):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 9, 11, dtype=torch.float64, generator=generator)
    sides = torch.full((2, 4, 9, 11), 3.0, dtype=torch.float64)
    for few, all_of_them in zip(
        find_peaks(logits, sides, STRIDE, 36, 44, limit), find_peaks(logits, sides, STRIDE, 36, 44, 999), strict=True
    ):
        assert len(few.scores) == min(limit, len(all_of_them.scores))
        assert (few.scores.diff() <= 0).all()
        for name in ("boxes", "scores", "classes"):
            assert torch.equal(getattr(few, name), getattr(all_of_them, name)[:limit])


@given(seed=st.integers(0, 99), height=st.integers(1, 37), width=st.integers(1, 51))
def test_boxes_lie_inside_an_image_of_any_size(seed, height, width):
    generator = torch.Generator().manual_seed(seed)
    # The maps of an image that was padded are larger than the image, so that there are peaks outside it.
    logits = torch.randn(2, 3, 16, 16, generator=generator)
    sides = 90 * torch.rand(2, 4, 16, 16, generator=generator) ** 2
    for found in find_peaks(logits, sides, STRIDE, height, width, 100):
        left, top, right, bottom = found.boxes.unbind(1)
        assert ((left >= 0) & (left < right) & (right <= width)).all()
        assert ((top >= 0) & (top < bottom) & (bottom <= height)).all()
        assert found.boxes.dtype == found.scores.dtype == torch.float32
        assert found.classes.dtype == torch.int64
        assert len(found.boxes) == len(found.scores) == len(found.classes)
