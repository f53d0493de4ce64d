"""Sources of pairs of every task: what scenes hold comes back from files, and nothing is dropped silently."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from timfuse.data import PairSource, make_scene, open_source, read_pixels, write_pixels, write_scenes
from timfuse.data.pair_source import Labels
from timfuse.data.splits import split_pairs
from timfuse.genotypes import TASKS
from timfuse.runtime.errors import UserError

CLASSES = ("person", "bicycle", "car")


def opened(root: Path | None, labels: Labels | None, minimum_size: int = 32, **more: object) -> PairSource:
    return open_source(root, labels=labels, minimum_size=minimum_size, synthetic_pairs=4, seed=5, **more)  # type: ignore[arg-type]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    write_scenes(tmp_path, 4, height=64, width=96, seed=5)
    return tmp_path


def test_synthetic_scenes_are_large_enough_and_follow_the_seed() -> None:
    for minimum, size in ((64, 128), (200, 400)):
        source = open_source(None, minimum_size=minimum, synthetic_pairs=2, seed=3)
        assert len(source) == 2
        assert source[0][0].shape == (size, size)
    images = [open_source(None, minimum_size=64, synthetic_pairs=2, seed=seed)[0][1] for seed in (3, 3, 4)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("task", TASKS)
def test_there_are_synthetic_pairs_of_every_task(task: str) -> None:
    source = open_source(None, task=task, minimum_size=64, synthetic_pairs=2, seed=3)
    assert [image.shape for image in source[1]] == [(128, 128)] * 2
    assert list(source.names) == sorted(source.names)


def test_no_synthetic_pairs_of_what_is_unknown() -> None:
    with pytest.raises(UserError, match=r"task must be one of .*, not 'mri'"):
        open_source(None, task="mri", minimum_size=64, synthetic_pairs=2, seed=0)
    with pytest.raises(UserError, match="the folders a and b of mine belong to no data set; give its folder as root"):
        open_source(None, task="mine", folders=("a", "b"), minimum_size=64, synthetic_pairs=2, seed=0)


def test_two_named_folders_are_read_whatever_the_task(tmp_path: Path) -> None:
    for side in ("t1", "t2"):
        write_pixels(tmp_path / side / "one.png", np.full((40, 50), 9, np.uint8))
    source = open_source(tmp_path, task="mine", folders=("t1", "t2"), minimum_size=32, synthetic_pairs=2, seed=0)
    assert (source.names, source[0][0].shape) == (("one",), (40, 50))


def test_a_folder_of_a_task_is_read_and_checked(tmp_path: Path) -> None:
    for side in ("near", "far"):
        write_pixels(tmp_path / side / "one.png", np.full((40, 50), 9, np.uint8))
    source = open_source(tmp_path, task="multi-focus", minimum_size=32, synthetic_pairs=2, seed=0)
    assert (source.names, source[0][0].shape) == (("one",), (40, 50))
    with pytest.raises(UserError, match="the minimum is 64x64"):
        open_source(tmp_path, task="multi-focus", minimum_size=64, synthetic_pairs=2, seed=0)
    with pytest.raises(UserError):
        open_source(tmp_path, minimum_size=32, synthetic_pairs=2, seed=0)


def test_synthetic_scenes_with_their_labels() -> None:
    boxes, masks = opened(None, "boxes", 64), opened(None, "masks", 72)
    assert (boxes.classes, masks.classes) == (CLASSES, ("background", *CLASSES))
    assert (boxes[0][0].shape, masks.mask(3).shape) == ((128, 128), (144, 144))
    assert (len(boxes), boxes.unlabelled) == (4, ())
    assert (boxes.labels, masks.labels) == ("boxes", "masks")
    scene = make_scene([5, 2])
    objects = boxes.objects(2)
    assert np.array_equal(objects.boxes.numpy(), scene.boxes)
    assert np.array_equal(objects.classes.numpy(), scene.classes)
    assert np.array_equal(boxes[2][1], scene.second)


def test_written_scenes_are_read_back(made: Path) -> None:
    boxes, masks = opened(made, "boxes"), opened(made, "masks")
    assert (boxes.classes, masks.classes) == (CLASSES, ("background", *CLASSES))
    assert boxes.names == masks.names == tuple(f"scene_0000{index}" for index in range(4))
    count = 0
    for index in range(4):
        scene = make_scene([5, index], height=64, width=96)
        objects = boxes.objects(index)
        torch.testing.assert_close(objects.boxes, torch.from_numpy(scene.boxes), rtol=0, atol=1e-3)
        assert objects.classes.tolist() == scene.classes.tolist()
        assert np.array_equal(masks.mask(index), scene.mask)
        assert masks.mask(index).dtype == np.uint8
        for image, pixels in zip(boxes[index], (scene.first, scene.second), strict=True):
            assert np.array_equal(image, pixels)
        count += len(objects.boxes)
    assert count > 4


def test_a_pair_without_label_is_never_dropped(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = opened(made, "boxes")
    (made / "boxes" / "scene_00002.txt").unlink()
    (made / "label" / "scene_00001.png").unlink()
    source = opened(made, "boxes")
    assert source.names == whole.names
    assert [len(source.objects(index).boxes) for index in range(4)] == [
        0 if index == 2 else len(whole.objects(index).boxes) for index in range(4)
    ]
    assert f"1 of 4 pairs in {made} have no label file and are taken to show no object" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"the pair scene_00001 has no mask \(1 of 4"):
        opened(made, "masks")


def test_bad_labels_are_reported_at_the_door(made: Path) -> None:
    file = made / "boxes" / "scene_00003.txt"
    file.write_text("0 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\n")
    with pytest.raises(UserError, match=r"scene_00003\.txt, line 2: the class is none of 0 to 2"):
        opened(made, "boxes")
    write_pixels(made / "label" / "scene_00003.png", np.zeros((96, 64), np.uint8))
    with pytest.raises(UserError, match=r"scene_00003\.png is 64x96, its pair is 96x64"):
        opened(made, "masks")
    (made / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"cannot read the class names .*classes.txt"):
        opened(made, "boxes")


def test_clipped_boxes_are_counted_once(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened(made, "boxes")
    assert "border" not in capsys.readouterr().err
    for index in (1, 3):
        (made / "boxes" / f"scene_0000{index}.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0 0 0.5 0.5\n2 1 1 0.5 0.5\n")
    source = opened(made, "boxes")
    lines = [line for line in capsys.readouterr().err.splitlines() if "border" in line]
    assert lines == [f"4 boxes of 2 pairs in {made} reach over the border of their image; they were clipped to it"]
    assert source.objects(3).boxes[1:].tolist() == [[0, 0, 24, 16], [72, 48, 96, 64]]


def test_only_listed_pairs_have_masks(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "labelled.txt").write_text("scene_00003\nscene_00001.png\n")
    for index in (0, 2):
        (made / "label" / f"scene_0000{index}.png").unlink()
    source = opened(made, "masks")
    assert source.names == ("scene_00001", "scene_00003")
    assert source.unlabelled == ("scene_00000", "scene_00002")
    assert f"2 of 4 pairs in {made} have no mask" in capsys.readouterr().err
    assert len(opened(made, "boxes")) == 4
    (made / "label" / "scene_00003.png").unlink()
    with pytest.raises(UserError, match="the pair scene_00003 has no mask"):
        opened(made, "masks")
    (made / "labelled.txt").write_text("scene_9\n")
    with pytest.raises(UserError, match=r"labelled.txt names scene_9, of which there is no image"):
        opened(made, "masks")


def test_unlabelled_sets_are_told_what_they_lack(tmp_path: Path) -> None:
    for side in ("ir", "vis"):
        write_pixels(tmp_path / side / "one.png", np.zeros((32, 32), np.uint8))
    with pytest.raises(UserError, match=r"has no labels for detection: give boxes/NAME.txt and classes.txt"):
        opened(tmp_path, "boxes")
    with pytest.raises(UserError, match=r"has no labels for segmentation: give label/NAME.png"):
        opened(tmp_path, "masks")


@pytest.mark.parametrize(
    ("task", "folders", "sides"),
    [
        ("multi-focus", None, ("source_1", "source_2")),
        ("mri-ct", None, ("mri", "other")),
        ("mine", ("left", "right"), ("left", "right")),
    ],
)
def test_pairs_of_every_task_have_labels(
    tmp_path: Path, task: str, folders: tuple[str, str] | None, sides: tuple[str, str]
) -> None:
    for side, value in zip((*sides, "label"), (9, 8, 1), strict=True):
        write_pixels(tmp_path / side / "one.png", np.full((32, 40), value, np.uint8))
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "one.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("lesion\n")
    boxes, masks = (opened(tmp_path, labels, task=task, folders=folders) for labels in ("boxes", "masks"))
    assert boxes.objects(0).boxes.tolist() == [[10, 8, 30, 24]]
    assert (boxes.classes, masks.classes) == (("lesion",), ("background", "target"))
    assert masks.mask(0).tolist() == [[1] * 40] * 32
    plain = opened(tmp_path, None, task=task, folders=folders)
    assert (plain.labels, plain.classes, plain.names) == (None, (), ("one",))


def test_synthetic_pairs_of_other_tasks_have_no_labels() -> None:
    with pytest.raises(UserError, match="synthetic mri-ct pairs have no boxes; give a folder of pairs that have some"):
        opened(None, "boxes", task="mri-ct")


def test_a_divided_set_in_the_layout_of_msrs(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for side, value in (("ir", 9), ("vi", 8), ("Segmentation_labels", 1)):
            write_pixels(tmp_path / part / side / f"{part}.png", np.full((32, 40), value, np.uint8))
    source = opened(tmp_path, "masks")
    assert (source.names, source.classes, source.mask(0).shape) == (("train",), ("background", "target"), (32, 40))


def test_all_forms_of_boxes_are_the_same_to_the_bit(tmp_path: Path) -> None:
    box = {"xmin": 20, "ymin": 8, "xmax": 30, "ymax": 24}
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in box.items())
    coco = {
        "images": [{"id": 0, "file_name": "one.png", "width": 40, "height": 32}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [20, 8, 10, 16]}],
        "categories": [{"id": 1, "name": "person"}],
    }
    size = "<size><width>40</width><height>32</height></size>"
    forms = {
        "yolo": {"labels/one.txt": "0 0.625 0.5 0.25 0.5", "data.yaml": "names: [person]"},
        "polygon": {"labels/one.txt": "0 .5 .25 .75 .25 .75 .75 .6 .75", "classes.txt": "person"},
        "voc": {
            "annotations/one.xml": f"<annotation>{size}<object><name>person</name><bndbox>{corners}</bndbox></object>"
            "</annotation>"
        },
        "coco": {"annotations/train.json": json.dumps(coco)},
    }
    fingerprints = set()
    for form, files in forms.items():
        root = tmp_path / form
        for side in ("ir", "vis"):
            write_pixels(root / side / "one.png", np.full((32, 40), 9, np.uint8))
        for name, text in files.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)
        source = opened(root, "boxes")
        assert (source.classes, source.objects(0).boxes.tolist()) == (("person",), [[20, 8, 30, 24]])
        fingerprints.add(source.fingerprint())
    assert len(fingerprints) == 1


@pytest.mark.parametrize(
    ("case", "box"),
    [
        ("voc", [50, 40, 90, 110]),
        ("coco", [50, 40, 90, 110]),
        ("yolo_missing", [80, 56, 120, 104]),
        ("yolo_poly", [80, 64, 120, 112]),
        ("yolo_yaml", [80, 56, 120, 104]),
    ],
)
def test_boxes_that_people_have(shared: Path, case: str, box: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    source = opened(shared / "cases" / "files" / case, "boxes")
    assert source.classes == ("person",)
    labelled = 5 if case == "yolo_missing" else 6
    for index in range(6):
        boxes, kinds = source.objects(index)
        assert boxes.tolist() == [pytest.approx(box)] * (index < labelled)
        assert kinds.tolist() == [0] * (index < labelled)
    told = capsys.readouterr().err
    assert ("1 of 6 pairs in " in told) == (case == "yolo_missing")
    assert ("6 polygons of 6 pairs in " in told) == (case == "yolo_poly")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("mask_16", None),
        ("mask_1bit", None),
        ("mask_rgba_grey", None),
        (
            "mask_rgb",
            r"the mask .*001.png shows the colour 128 64 0 and no class ids; write lines 'red green blue name'",
        ),
        ("mask_jpg", r"the mask .*001.jpg is a JPEG file, which mixes class ids by its compression; save it as PNG"),
        ("mask255_named", r"all masks in .*label show nothing but background \(0\) and .* \(person as 1\)$"),
    ],
)
def test_masks_that_people_have(shared: Path, tmp_path: Path, case: str, message: str | None) -> None:
    root = shared / "cases" / "files" / case
    if message is not None:
        with pytest.raises(UserError, match=message):
            opened(root, "masks")
    else:
        source = opened(root, "masks")
        assert source.classes == ("background", "target")
        assert [np.unique(source.mask(index)).tolist() for index in range(6)] == [[0, 1]] * 6
    if case == "mask_rgb":
        shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
        (tmp_path / "copy" / "label-classes.txt").write_text("0 0 0 background\n128 64 0 person\n")
        source = opened(tmp_path / "copy", "masks")
        assert source.classes == ("background", "person")
        expected = read_pixels(root / "label" / "001.png")[..., 0] == 128
        assert np.array_equal(source.mask(0), expected)


def test_a_huge_box_is_refused_in_one_line(shared: Path, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(UserError, match=r"boxes/1.txt, line 1: the box reaches far out of the image; write centre and"):
        opened(shared / "cases" / "faults" / "labels-box-1e308" / "d", "boxes")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("folder", "labels", "classes", "parts"),
    [
        ("msrs-detection", "boxes", CLASSES, (194, 52)),
        ("msrs", "boxes", CLASSES, (49, 15)),
        ("msrs-target", "boxes", CLASSES, (6, 2)),
        ("msrs-target", "masks", ("background", "target"), (6, 2)),
        ("tno", "masks", ("background", "target"), (6, 4)),
    ],
)
def test_real_sets(shared: Path, folder: str, labels: Labels, classes: tuple[str, ...], parts: tuple[int, int]) -> None:
    root = shared / "data" / folder
    if not root.is_dir():
        pytest.skip(f"no {folder} in the data")
    source = opened(root, labels, 128)
    assert source.classes == classes
    split = split_pairs(source.names, seed=0, folder=root, unlabelled=source.unlabelled)
    assert (len(split.training), len(split.validation)) == parts
    assert not set(split.training) & set(split.validation)
    for index in range(len(source)):
        height, width = source[index][0].shape
        if labels == "masks":
            assert source.mask(index).shape == (height, width)
            continue
        boxes, kinds = source.objects(index)
        assert len(boxes) == len(kinds)
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
