import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.data.pair_batch import IGNORED, Objects
from timfuse.downstream import Detections
from timfuse.downstream.scoring import count_confusions, match_detections, score_detections, score_masks
from timfuse.runtime.errors import UserError

pytest.importorskip("faster_coco_eval")
pytest.importorskip("torchmetrics")

CLASSES = ("person", "car")
SIZE = (64, 96)
LEFT, RIGHT, ELSEWHERE = (0, 0, 10, 10), (30, 20, 50, 60), (70, 5, 80, 15)


def truth(*boxes, classes=None):
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(classes or [0] * len(boxes)).long()
    )


def found(*boxes, scores=None, classes=None):
    scores = scores or [0.9 - 0.1 * position for position in range(len(boxes))]
    return Detections(truth(*boxes).boxes, torch.tensor(scores), torch.tensor(classes or [0] * len(boxes)).long())


def score(predictions, truths):
    return score_detections(predictions, truths, CLASSES, [SIZE] * len(truths))


@pytest.mark.parametrize(
    ("detections", "ap50"),
    [
        (found(LEFT, RIGHT), 1.0),
        # Recall 0.5 at precision 1: 51 of the 101 recalls 0, 0.01, ..., 1.
        (found(LEFT), 51 / 101),
        (found(LEFT, ELSEWHERE), 51 / 101),
        (found(ELSEWHERE, LEFT), 51 / 101 / 2),
        (found(LEFT, ELSEWHERE, RIGHT), (51 + 50 * 2 / 3) / 101),
        # An object counts once: what is found again is wrong.
        (found(LEFT, LEFT, RIGHT), (51 + 50 * 2 / 3) / 101),
        (found(ELSEWHERE), 0.0),
        (found(), 0.0),
        (found(LEFT, RIGHT, classes=[1, 0]), 51 / 101),
    ],
    ids=[
        "both",
        "miss",
        "miss and wrong",
        "wrong first",
        "wrong between",
        "twice",
        "only wrong",
        "none",
        "other class",
    ],
)
def test_average_precision_by_hand(detections, ap50):
    scores = score([detections], [truth(LEFT, RIGHT)])
    assert scores.ap50 == pytest.approx(ap50)
    assert scores.map == pytest.approx(ap50)
    assert scores.ap50_by_class["person"] == pytest.approx(ap50)
    assert math.isnan(scores.ap50_by_class["car"])


def test_thresholds_of_overlap():
    # Intersection over union 0.72: found at 0.5, 0.55, ..., 0.7, which are five of ten.
    scores = score([found((0, 0, 10, 7.2))], [truth((0, 0, 10, 10))])
    assert scores[:2] == (1.0, 0.0)
    assert scores.map == pytest.approx(0.5)


def test_classes_weigh_the_same():
    detections = [found(LEFT, RIGHT, ELSEWHERE, classes=[0, 0, 1]), found(LEFT, classes=[1])]
    scores = score(detections, [truth(LEFT, RIGHT, classes=[0, 0]), truth(LEFT, classes=[1])])
    # The wrong car scores 0.7, the right one 0.9.
    assert scores.ap50_by_class == {"person": pytest.approx(1), "car": pytest.approx(1)}
    scores = score([*detections[:1], found()], [truth(LEFT, RIGHT, classes=[0, 0]), truth(LEFT, classes=[1])])
    assert scores.ap50_by_class == {"person": pytest.approx(1), "car": pytest.approx(0)}
    assert scores.ap50 == pytest.approx(0.5)


def test_images_without_objects_take_away_by_what_is_found_in_them():
    nothing = truth()
    assert score([found(LEFT), found()], [truth(LEFT), nothing]).map == pytest.approx(1)
    wrong = found(RIGHT, scores=[0.99])
    assert score([found(LEFT), wrong], [truth(LEFT), nothing]).map == pytest.approx(0.5)


def test_no_objects_at_all_is_no_number():
    for detections in (found(), found(LEFT)):
        scores = score([detections], [truth()])
        assert all(math.isnan(each) for each in (*scores[:3], *scores.ap50_by_class.values()))


def test_large_objects_count():
    boxes = [(0, 0, 1000, 1000), (0, 0, 3, 3)]
    assert score_detections([found(*boxes)], [truth(*boxes)], CLASSES, [(1000, 1000)]).map == pytest.approx(1)


def test_the_hundred_best_count():
    boxes = [(6 * position, 0, 6 * position + 5, 9) for position in range(101)]
    scores = [0.9 - 0.001 * position for position in range(101)]
    perfect = score_detections([found(*boxes, scores=scores)], [truth(*boxes)], CLASSES, [(9, 700)])
    # Recall 100/101 leaves out the last of the 101 recalls.
    assert perfect.ap50 == pytest.approx(100 / 101)


boxes = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(4, 30), st.integers(4, 20)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
kinds = st.integers(0, 1)
images = st.lists(
    st.tuples(st.lists(st.tuples(boxes, kinds), max_size=4), st.lists(st.tuples(boxes, kinds), max_size=4)),
    min_size=1,
    max_size=4,
)


@given(images, st.randoms(use_true_random=False))
def test_the_order_of_images_and_detections_is_immaterial(scenes, random):
    ranks = iter(random.sample(range(1, 100), 99))
    truths = [truth(*(box for box, _ in held), classes=[kind for _, kind in held]) for held, _ in scenes]
    predictions = [
        found(*(box for box, _ in each), scores=[next(ranks) / 100 for _ in each], classes=[kind for _, kind in each])
        for _, each in scenes
    ]
    before = score(predictions, truths)
    order = random.sample(range(len(scenes)), len(scenes))
    shuffled = [Detections(*(part.flip(0) for part in predictions[position])) for position in order]
    after = score(shuffled, [truths[position] for position in order])
    assert after[:3] == pytest.approx(before[:3], nan_ok=True)
    assert after.ap50_by_class == pytest.approx(before.ap50_by_class, nan_ok=True)


@given(images)
def test_the_truth_itself_is_perfect_and_prints_nothing(scenes):
    truths = [truth(*(box for box, _ in held), classes=[kind for _, kind in held]) for held, _ in scenes]
    scores = score([Detections(each.boxes, torch.ones(len(each.boxes)), each.classes) for each in truths], truths)
    perfect = [value for value in (*scores[:3], *scores.ap50_by_class.values()) if not math.isnan(value)]
    assert perfect == pytest.approx([1.0] * len(perfect))
    assert bool(perfect) == any(len(each.boxes) for each in truths)


def test_scoring_detections_prints_nothing_and_leaves_its_input(capfd):
    detections, objects = found(LEFT), truth(LEFT, RIGHT)
    copies = [part.clone() for part in (*detections, *objects)]
    score([detections], [objects])
    assert capfd.readouterr() == ("", "")
    assert all(torch.equal(part, copy) for part, copy in zip((*detections, *objects), copies, strict=True))


# Neighbours overlap by 8 x 12 of 192 pixels, which is 0.5 exactly.
near = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
    lambda place: (4 * place[0], 4 * place[1], 4 * place[0] + 12, 4 * place[1] + 12)
)
labelled = st.lists(st.tuples(near, kinds), max_size=5)
scored = st.lists(st.tuples(near, kinds, st.integers(1, 6)), max_size=8)


def labelled_truth(held):
    return truth(*(box for box, _ in held), classes=[kind for _, kind in held])


def scored_found(each):
    return found(
        *(box for box, _, _ in each), scores=[score / 7 for *_, score in each], classes=[kind for _, kind, _ in each]
    )


def assert_scores(scores, expected):
    np.testing.assert_allclose(scores, [expected.ap50_by_class[name] for name in CLASSES], rtol=0, atol=1e-12)


@given(st.lists(st.tuples(labelled, scored), min_size=1, max_size=4))
def test_matches_score_as_coco_does(scenes):
    truths, predictions = (
        [make(scene[part]) for scene in scenes] for part, make in ((0, labelled_truth), (1, scored_found))
    )
    matches = match_detections(predictions, truths, CLASSES)
    assert matches.images == len(scenes)
    assert_scores(matches.class_scores(np.ones((1, len(scenes)), int))[0], score(predictions, truths))


# Of equal scores in one image and class, copies would come in another order.
apart = st.lists(st.tuples(near, kinds, st.integers(1, 6)), max_size=8, unique_by=lambda detection: detection[1:])


@given(st.lists(st.tuples(labelled, apart, st.integers(0, 3)), min_size=1, max_size=4))
def test_an_image_that_is_drawn_twice_counts_twice(scenes):
    truths = [labelled_truth(held) for held, _, _ in scenes]
    predictions = [scored_found(each) for _, each, _ in scenes]
    draws = [times for *_, times in scenes]
    draws[0] += not any(draws)
    copied = [place for place, times in enumerate(draws) for _ in range(times)]
    scores = match_detections(predictions, truths, CLASSES).class_scores(np.array([draws, [1] * len(draws), draws]))
    assert_scores(scores[0], score([predictions[place] for place in copied], [truths[place] for place in copied]))
    assert_scores(scores[1], score(predictions, truths))
    np.testing.assert_array_equal(scores[2], scores[0])


def test_drawn_images_by_hand():
    predictions = [found(LEFT, ELSEWHERE, scores=[0.9, 0.5]), found(ELSEWHERE, scores=[0.7], classes=[1])]
    matches = match_detections(predictions, [truth(LEFT), truth(LEFT, RIGHT, classes=[0, 1])], CLASSES)
    scores = matches.class_scores(np.array([[1, 1], [2, 0], [0, 2], [0, 0], [2, 1]]))
    # Persons: the first image holds one that is found, the second one that is not. Recall 2/3 reaches 67 of 101.
    np.testing.assert_allclose(scores[:, 0], [51 / 101, 1, 0, math.nan, 67 / 101])
    np.testing.assert_allclose(scores[:, 1], [0, math.nan, 0, math.nan, 0])


def test_only_the_hundred_best_are_matched():
    boxes = [(6 * position, 0, 6 * position + 5, 9) for position in range(101)]
    scores = [0.9 - 0.001 * position for position in range(101)]
    matches = match_detections([found(*boxes[::-1], scores=scores[::-1])], [truth(*boxes)], CLASSES)
    assert matches.class_scores(np.array([[1], [2]]))[:, 0] == pytest.approx(100 / 101)
    assert matches.places.shape == matches.kinds.shape == (100,)


NAMES = ("background", "person", "car")


def test_mean_iou_in_closed_form():
    # 4 x 10 pixels, truth: 20 background, 20 person; ten of the persons' pixels are taken for background.
    expected = torch.zeros(4, 10, dtype=torch.int64)
    expected[:2] = 1
    predicted = expected.clone()
    predicted[0] = 0
    scores = score_masks([predicted], [expected], NAMES)
    assert scores.iou == pytest.approx({"background": 20 / 30, "person": 10 / 20, "car": math.nan}, nan_ok=True)
    assert scores.miou == pytest.approx((20 / 30 + 10 / 20) / 2)
    # A class that is only predicted counts as nought.
    predicted[3, 0] = 2
    scores = score_masks([predicted], [expected], NAMES)
    assert scores.iou == pytest.approx({"background": 19 / 30, "person": 10 / 20, "car": 0})
    assert scores.miou == pytest.approx((19 / 30 + 10 / 20) / 3)


def test_ignored_pixels_count_nowhere():
    expected = torch.randint(0, 3, (6, 7), generator=torch.Generator().manual_seed(0))
    predicted = expected.clone()
    predicted[:3] = (predicted[:3] + 1) % 3
    expected[:3] = IGNORED
    scores = score_masks([predicted], [expected], NAMES)
    assert scores.miou == 1
    expected[:] = IGNORED
    scores = score_masks([predicted], [expected], NAMES)
    assert all(math.isnan(each) for each in (scores.miou, *scores.iou.values()))


def test_pixels_of_all_images_weigh_the_same():
    generator = torch.Generator().manual_seed(1)
    pairs = [torch.randint(0, 3, (2, *size), generator=generator) for size in ((8, 9), (20, 5), (1, 3))]
    together = torch.cat([pair.flatten(1) for pair in pairs], dim=1)[:, None]
    apart = score_masks((pair[0] for pair in pairs), (pair[1] for pair in pairs), NAMES)
    assert apart == score_masks(together[:1], together[1:], NAMES)
    # Beyond what a float32 counts exactly.
    many = torch.zeros(2, 4100, 4100, dtype=torch.int64)
    many[1, 0, 0] = 1
    assert score_masks(many[:1], many[1:], NAMES).iou["background"] == (4100**2 - 1) / 4100**2


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("faster_coco_eval", lambda: score([found(LEFT)], [truth(LEFT)])),
        ("torchmetrics.functional.classification", lambda: score_masks([], [], NAMES)),
    ],
)
def test_what_is_missing_is_named(monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"needs the package {module}; pip install 'timfuse\[tasks\]'"):
        call()


def test_confusions_score_as_copied_masks_do():
    generator = torch.Generator().manual_seed(2)
    predictions, truths = ([torch.randint(0, 2, (6, 7), generator=generator) for _ in range(3)] for _ in range(2))
    truths[0][:3] = IGNORED
    predictions[2][0, 0] = 2
    confusions = count_confusions(predictions, truths, NAMES)
    assert confusions.images == 3
    assert confusions.pixels.sum(axis=(1, 2)).tolist() == [21, 42, 42]
    draws = [[1, 1, 1], [2, 0, 1], [0, 3, 0]]
    for row, scores in zip(draws, confusions.class_scores(np.array(draws)), strict=True):
        copied = [place for place, times in enumerate(row) for _ in range(times)]
        expected = score_masks([predictions[place] for place in copied], [truths[place] for place in copied], NAMES)
        np.testing.assert_array_equal(scores, [expected.iou[name] for name in NAMES])
