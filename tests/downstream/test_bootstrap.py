import numpy as np
import pytest
import torch

from timfuse.data import Objects
from timfuse.downstream import Detections
from timfuse.downstream.bootstrap import difference_interval, resampled_scores
from timfuse.downstream.scoring import MaskConfusions, match_detections

CLASSES = ("person", "car")


def detections(*scores):
    """Detections of the person whom `person` labels, of which the first is right."""
    boxes = torch.tensor([[10.0 * place, 0, 10 * place + 8, 8] for place in range(len(scores))])
    return Detections(boxes.reshape(-1, 4), torch.tensor(scores), torch.zeros(len(scores)).long())


def person(count=1):
    return Objects(torch.tensor([[0.0, 0, 8, 8]])[:count], torch.zeros(count).long())


def random_confusions(images, seed):
    return MaskConfusions(np.random.default_rng(seed).integers(1, 100, (images, 3, 3)))


def test_two_images_by_hand():
    # One image scores 1, the other 0, and both together 51 of the 101 recalls.
    found, missed = detections(0.9), detections()
    run = match_detections([found, missed], [person(), person()], CLASSES)
    (scores,) = resampled_scores([run], resamples=4000)
    values, counts = np.unique(scores.round(9), return_counts=True)
    assert values == pytest.approx([0, 51 / 101, 1])
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_a_set_is_scored_as_its_images_are():
    run = random_confusions(7, 0)
    draws = np.random.default_rng(5).multinomial(7, [1 / 7] * 7, size=150)
    expected = [run.class_scores(draw[None]).mean() for draw in draws]
    np.testing.assert_allclose(resampled_scores([run], 150, seed=5)[0], expected)


def test_all_methods_see_the_same_sets():
    # The second method misses the same persons, and its wrong detections come last, where they cost nothing.
    truths = [person()] * 6
    first = [detections(0.9) if place % 3 else detections() for place in range(6)]
    second = [detections(0.8, 0.1) if place % 3 else detections() for place in range(6)]
    runs = [match_detections(each, truths, CLASSES) for each in (first, second)]
    scores = [resampled_scores([run], resamples=100) for run in runs]
    assert scores[0].std() > 0.1
    np.testing.assert_array_equal(*scores)
    assert difference_interval(*scores) == (0, 0)


def test_the_seed_determines_the_sets():
    run = random_confusions(9, 1)
    scores = resampled_scores([run], resamples=70, seed=3)
    np.testing.assert_array_equal(resampled_scores([run], resamples=70, seed=3), scores)
    assert not np.array_equal(resampled_scores([run], resamples=70, seed=4), scores)


def test_runs_are_averaged_in_each_set():
    runs = [random_confusions(8, seed) for seed in range(3)]
    scores = resampled_scores(runs, resamples=50)
    assert scores.shape == (3, 50)
    np.testing.assert_array_equal(scores[1:2], resampled_scores(runs[1:2], resamples=50))
    expected = np.quantile(scores[:2].mean(axis=0) - scores[2], [0.025, 0.975])
    assert difference_interval(scores[:2], scores[2:]) == pytest.approx(expected)


def test_classes_and_sets_without_objects_are_left_out():
    run = match_detections([detections(0.9), detections(0.9)], [person(), person(0)], CLASSES)
    (scores,) = resampled_scores([run], resamples=200)
    # Cars occur nowhere. A set of the second image alone has no score.
    assert 0.15 < np.isnan(scores).mean() < 0.35
    known = scores[~np.isnan(scores)]
    assert set(known.tolist()) == {1.0}
    assert difference_interval(scores[None], np.zeros((1, 200))) == (1, 1)
    assert np.isnan(difference_interval(np.full((1, 3), np.nan), np.zeros((1, 3)))).all()


def test_the_interval_has_the_spread_of_the_mean():
    # With as many pixels in each class, the score is nearly linear in the images: the interval is that of a mean.
    right = np.random.default_rng(0).integers(40, 60, 80)
    pixels = np.stack([np.diag([each, each]) + (100 - each) * np.eye(2, dtype=int)[::-1] for each in right])
    scores = resampled_scores([MaskConfusions(pixels)])
    low, high = difference_interval(scores, np.zeros_like(scores))
    rate = right.mean() / 100
    slope = 2 / (2 - rate) ** 2  # of the score rate / (2 - rate)
    assert (low + high) / 2 == pytest.approx(rate / (2 - rate), abs=0.002)
    assert high - low == pytest.approx(2 * 1.96 * slope * right.std() / 100 / np.sqrt(80), rel=0.08)


def test_runs_have_the_same_images():
    with pytest.raises(ValueError, match="need the same images"):
        resampled_scores([random_confusions(3, 0), random_confusions(4, 0)])
