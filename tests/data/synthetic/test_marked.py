"""Marked scenes: neither source shows the objects alone, and both together do."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from timfuse.data import Scene, open_source, write_scenes
from timfuse.data.synthetic import MARKED_CLASSES, make_marked_scene
from timfuse.data.synthetic.marked import Figure, Marking, draw_figures, render_figures

HEIGHT, WIDTH = 192, 256
FIGURES = [draw_figures(np.random.default_rng(seed), height=HEIGHT, width=WIDTH) for seed in range(300)]


def render(figures: Sequence[Figure], seed: int) -> Scene:
    return render_figures(list(figures), np.random.default_rng(seed), height=HEIGHT, width=WIDTH)


def is_target(figure: Figure) -> bool:
    return figure.heat is not None and figure.marking is not None


SCENES = [render(figures, seed) for seed, figures in enumerate(FIGURES[:16])]


def test_a_scene_is_a_function_of_its_seed() -> None:
    one, again, other = (make_marked_scene(seed, height=64, width=96) for seed in (3, 3, 4))
    for field in ("first", "second", "boxes", "classes", "mask"):
        np.testing.assert_array_equal(getattr(one, field), getattr(again, field))
    assert not np.array_equal(one.first, other.first)


def test_infrared_does_not_depend_on_markings() -> None:
    for seed, (figures, scene) in enumerate(zip(FIGURES, SCENES[:6], strict=False)):
        turned = [
            each if each.marking is None else replace(each, marking=Marking((each.marking + 1) % 3)) for each in figures
        ]
        permuted = render(turned, seed)
        np.testing.assert_array_equal(permuted.first, scene.first)
        np.testing.assert_array_equal(permuted.boxes, scene.boxes)
        np.testing.assert_array_equal(permuted.classes, (scene.classes + 1) % 3)
        assert not np.array_equal(permuted.second, scene.second)
        unmarked = render([replace(each, marking=None) for each in figures], seed)
        np.testing.assert_array_equal(unmarked.first, scene.first)
        assert len(unmarked.boxes) == 0


def test_the_visible_image_does_not_depend_on_heat() -> None:
    for seed, (figures, scene) in enumerate(zip(FIGURES, SCENES[:6], strict=False)):
        cold = render([replace(each, heat=None) for each in figures], seed)
        np.testing.assert_array_equal(cold.second, scene.second)
        assert not np.array_equal(cold.first, scene.first)
        assert len(cold.boxes) == 0
        warm = render([replace(each, heat=30.0) for each in figures], seed)
        np.testing.assert_array_equal(warm.second, scene.second)
        assert len(warm.boxes) == sum(each.marking is not None for each in figures)


def test_what_a_scene_holds() -> None:
    for figures in FIGURES:
        targets = sum(is_target(each) for each in figures)
        boards, unmarked = sum(each.heat is None for each in figures), sum(each.marking is None for each in figures)
        assert 2 <= targets <= 5
        assert 2 <= boards <= 4
        assert 1 <= unmarked <= 2
        assert targets + boards + unmarked == len(figures)


def test_figures_of_all_kinds_look_alike() -> None:
    """Means of size, place and looks differ by less than four standard errors between targets and the others."""
    drawn = [each for figures in FIGURES for each in figures]
    targets = [each for each in drawn if is_target(each)]
    boards = [each for each in drawn if each.heat is None]
    unmarked = [each for each in drawn if each.marking is None]
    for name in ("x", "y", "size", "girth", "lean", "span", "brightness", "heat", "marking"):
        others = {"heat": [unmarked], "marking": [boards]}.get(name, [boards, unmarked])
        mine = np.array([getattr(each, name) for each in targets], float)
        for group in others:
            theirs = np.array([getattr(each, name) for each in group], float)
            error = np.hypot(mine.std() / np.sqrt(len(mine)), theirs.std() / np.sqrt(len(theirs)))
            assert abs(mine.mean() - theirs.mean()) < 4 * error, name
    sizes = np.array([each.size for each in drawn]) * HEIGHT
    assert 18 <= sizes.min() < 20
    assert 50 < sizes.max() <= 60
    assert min(2 * each.span * each.size * HEIGHT for each in drawn) >= 9  # pixels of a marking


def test_boxes_enclose_the_silhouettes_and_do_not_overlap() -> None:
    for figures, scene in zip(FIGURES, SCENES, strict=False):
        covered = np.zeros_like(scene.mask, int)
        targets = [each for each in figures if is_target(each)]
        assert len(scene.boxes) == len(targets)
        for figure, (left, top, right, bottom), kind in zip(
            targets, scene.boxes.astype(int), scene.classes, strict=True
        ):
            assert MARKED_CLASSES[kind] == figure.marking.name.lower()
            assert left <= figure.x * HEIGHT <= right
            assert abs((bottom - top) - figure.size * HEIGHT) <= 0.06 * figure.size * HEIGHT + 2
            inside = scene.mask[top:bottom, left:right] == kind + 1
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()  # the box is tight
            covered[top:bottom, left:right] += 1
        assert covered.max() == 1
        assert not scene.mask[covered == 0].any()


def test_all_classes_occur() -> None:
    kinds = np.concatenate([scene.classes for scene in SCENES])
    assert (np.bincount(kinds, minlength=3) > 5).all()


def test_bodies_are_warm_and_markings_are_bright() -> None:
    for figures, scene in zip(FIGURES, SCENES, strict=False):
        for each in figures:
            x, y, reach = (round(HEIGHT * value) for value in (each.x, each.y, 0.7 * each.size))
            near = slice(max(0, y - reach), y + reach), slice(max(0, x - reach), x + reach)
            core = slice(y - reach // 3, y + reach // 3), slice(x - reach // 3, x + reach // 3)
            if each.heat is not None:
                assert scene.first[core].mean() > np.median(scene.first[near]) + 10
            if each.marking is not None:
                assert np.percentile(scene.second[core], 90) > np.percentile(scene.second[near], 3) + 60


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 70), (200, 40)])
def test_any_size(height: int, width: int) -> None:
    for seed in range(3):
        scene = make_marked_scene(seed, height=height, width=width)
        assert scene.first.shape == scene.second.shape == scene.mask.shape == (height, width)
        assert scene.boxes.shape == (len(scene.classes), 4)


def test_scenes_on_disk_are_the_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path, 2, kind="marked", height=64, width=96, seed=7)
    boxes, masks = (open_source(tmp_path, labels=labels) for labels in ("boxes", "masks"))
    assert (boxes.classes, masks.classes) == (MARKED_CLASSES, ("background", *MARKED_CLASSES))
    for index in range(2):
        scene = make_marked_scene([7, index], height=64, width=96)
        for image, same in zip(boxes[index], (scene.first, scene.second), strict=True):
            np.testing.assert_array_equal(image, same)
        np.testing.assert_allclose(boxes.objects(index).boxes, scene.boxes, atol=1e-3)
        np.testing.assert_array_equal(boxes.objects(index).classes, scene.classes)
        np.testing.assert_array_equal(masks.mask(index), scene.mask)
