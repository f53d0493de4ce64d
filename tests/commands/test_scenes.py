"""`timfuse scenes`."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.parametrize(
    ("task", "first", "second", "modes"),
    [
        ("infrared-visible", "ir/scene_00000", "vis/scene_00000", ["L", "L"]),
        ("mri-ct", "mri/101008", "ct/101008", ["L", "L"]),
        ("mri-spect", "mri/101008", "spect/101008", ["L", "RGB"]),
        ("multi-exposure", "under/scene_00000", "over/scene_00000", ["RGB", "RGB"]),
        ("multi-focus", "near/scene_00000", "far/scene_00000", ["RGB", "RGB"]),
    ],
)
def test_synthetic_pairs_of_every_task(run, task, first, second, modes):
    code, output, _ = run("scenes", "--task", task, "-o", "made", "--count", "2", "--size", "48x40")
    folders = [Path("made") / Path(name).parent for name in (first, second)]
    labels = ", with labels in made/boxes and made/label" if task == "infrared-visible" else ""
    assert (code, output) == (0, f"2 pairs in {folders[0]} and {folders[1]}{labels}\n")
    assert sorted(path.name for path in Path("made").rglob("*.txt")) == (
        ["classes.txt", "label-classes.txt", "scene_00000.txt", "scene_00001.txt"] if labels else []
    )
    images = [Image.open(f"made/{name}.png") for name in (first, second)]
    assert [image.size for image in images] == [(48, 40)] * 2
    assert [image.mode for image in images] == modes
    assert [len(list(folder.iterdir())) for folder in folders] == [2, 2]


def test_marked_scenes_have_classes_of_their_own(run):
    code, output, _ = run("scenes", "--kind", "marked", "-o", "made", "--count", "1", "--size", "48x40")
    assert (code, output) == (0, "1 pairs in made/ir and made/vis, with labels in made/boxes and made/label\n")
    assert Path("made/classes.txt").read_text().split() == ["disc", "cross", "stripes"]
    assert Path("made/label-classes.txt").read_text().split() == ["background", "disc", "cross", "stripes"]


def test_bad_requests_for_synthetic_pairs(refused):
    assert "task must be one of infrared-visible, " in refused("scenes", "--task", "multi-focal", "-o", "made")
    assert "--size must be WIDTHxHEIGHT from 32x32 on" in refused("scenes", "--size", "31x40", "-o", "made")
    assert "kind marked is one of infrared-visible scenes" in refused(
        "scenes", "--task", "mri-ct", "--kind", "marked", "-o", "made"
    )


def test_stacks(run, refused):
    code, output, _ = run("scenes", "--task", "multi-focus", "--stack", "-o", "made", "--count", 2, "--size", "48x40")
    assert (code, output) == (0, "2 stacks in made/near and made/mid and made/far\n")
    assert [Image.open(f"made/{folder}/scene_00001.png").size for folder in ("near", "mid", "far")] == [(48, 40)] * 3
    line = refused("scenes", "--stack", "-o", "other")
    assert line == "a stack is one of multi-exposure or multi-focus scenes; leave it out for infrared-visible"
