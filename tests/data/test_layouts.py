"""The layouts of the field's data sets, one by one."""

import os
from pathlib import Path

import pytest

from timfuse.data import Pair, find_pairs
from timfuse.data.folder_pairs import check_pairs
from timfuse.data.layouts import LAYOUTS
from timfuse.genotypes import TASKS

# Task, part, files of one pair as the set comes (first, second), its name, and what else lies about.
SETS = {
    "TNO": ("infrared-visible", None, "ir/01.png vis/01.png", "01", ""),
    "TNO, as published": (
        "infrared-visible",
        None,
        "Athena_images/bunker/IR_meting012_g.bmp Athena_images/bunker/VIS_meting012_r.bmp",
        "bunker",
        "README.txt Athena_images/REFERENCES/paper.pdf FEL_images/Tree_sequence/thermal/4910i.bmp",
    ),
    "TNO, one camera": (
        "infrared-visible",
        None,
        "Jeep/IR_1.bmp Jeep/VIS_1.bmp",
        "Jeep",
        "Jeep/REF.txt",
    ),
    "RoadScene": (
        "infrared-visible",
        None,
        "cropinfrared/FLIR_00006.jpg crop_LR_visible/FLIR_00006.jpg",
        "FLIR_00006",
        "crop_HR_visible/FLIR_00006.jpg infrared/FLIR_00006.jpg",
    ),
    "MSRS": (
        "infrared-visible",
        "test",
        "test/ir/00004N.png test/vi/00004N.png",
        "00004N",
        "test/Segmentation_labels/00004N.png train/ir/1.png train/vi/1.png",
    ),
    "M3FD": ("infrared-visible", None, "Ir/00000.png Vis/00000.png", "00000", "Annotation/00000.xml"),
    "FMB": (
        "infrared-visible",
        "train",
        "train/Infrared/00001.png train/Visible/00001.png",
        "00001",
        "train/Label/00001.png test/Infrared/2.png test/Visible/2.png",
    ),
    "LLVIP": (
        "infrared-visible",
        "test",
        "infrared/test/190001.jpg visible/test/190001.jpg",
        "190001",
        "infrared/train/1.jpg visible/train/1.jpg Annotations/190001.xml",
    ),
    "Harvard CT": (
        "mri-ct",
        None,
        "CT-MRI/MRI/16003.png CT-MRI/CT/16003.png",
        "16003",
        "PET-MRI/MRI/25015.png PET-MRI/PET/25015.png",
    ),
    "Harvard PET": (
        "mri-pet",
        None,
        "PET-MRI/MRI/25015.png PET-MRI/PET/25015.png",
        "25015",
        "SPECT-MRI/MRI/1.png SPECT-MRI/SPECT/1.png",
    ),
    "Harvard SPECT": ("mri-spect", None, "MRI/3001.png SPECT/3001.png", "3001", ""),
    "Harvard, other": ("mri-spect", None, "mri-spect/mri/3001.png mri-spect/other/3001.png", "3001", ""),
    "Harvard, divided": ("mri-ct", "test", "test/CT-MRI/MRI/1.png test/CT-MRI/CT/1.png", "1", ""),
    "Harvard, divided below": ("mri-ct", "test", "CT-MRI/test/MRI/1.png CT-MRI/test/CT/1.png", "1", ""),
    "MEFB": (
        "multi-exposure",
        None,
        "input/Farmhouse/Farmhouse_A.png input/Farmhouse/FarmHouse_B.png",
        "Farmhouse",
        "input/Farmhouse/DSC_1.png input/Farmhouse/ev.txt output/Farmhouse.png",
    ),
    "MEFB, scenes": ("multi-exposure", None, "Mask/Mask_A.png Mask/Mask_B.png", "Mask", "Mask/mask_over.png"),
    "SICE": ("multi-exposure", "train", "train/ue/1.png train/oe/1.png", "1", "train/gt/001_00.png"),
    "under and over": ("multi-exposure", None, "under/x.jpg over/x.png", "x", ""),
    "Lytro": ("multi-focus", None, "lytro-01-A.jpg lytro-01-B.jpg", "lytro-01", "Readme.txt triple/lytro-21-C.jpg"),
    "MFI-WHU": ("multi-focus", None, "source_1/1.jpg source_2/1.jpg", "1", "full_clear/1.jpg"),
    "underscores": ("multi-focus", None, "01_A.png 01_B.png", "01", ""),
    "near and far": ("multi-focus", None, "near/x.jpg far/x.jpg", "x", ""),
}


@pytest.mark.parametrize(
    ("task", "folders"),
    [
        *(("infrared-visible", names) for names in ("II VI", "IR RGB", "T RGB", "TIR VIS", "inf visi", "lwir visible")),
        *(("infrared-visible", names) for names in ("nir rgb", "thermal rgb", "Infrared Visible", "ir vi")),
        *(("multi-exposure", names) for names in ("low high", "Underexposed Overexposed", "ue over")),
        *(("multi-focus", names) for names in ("sourceA sourceB", "source1 source2", "A B")),
        ("mri-pet", "MR PET"),
    ],
)
@pytest.mark.parametrize("form", ["{}/x.png", "{}/train/x.png"])
def test_usual_names_of_folders(tmp_path: Path, task: str, folders: str, form: str) -> None:
    first, second = (tmp_path / form.format(name) for name in folders.split())
    for file in (first, second):
        file.parent.mkdir(parents=True)
        file.touch()
    assert find_pairs(tmp_path, task) == [Pair("x", first, second)]


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ("IR1.png VIS1.png", "1"),
        ("ir_1.png vis_1.png", "1"),
        ("1-ir.png 1-vis.png", "1"),
        ("man IR.png man VIS.png", "man"),
        ("s/thermal.png s/rgb.png", "s"),
        ("s/IR.png s/visible.png", "s"),
        ("s/ir.png s/RGB.png", "s"),
    ],
)
def test_one_folder_for_all_and_one_for_each_scene(tmp_path: Path, files: str, name: str) -> None:
    first, second = (tmp_path / f"{file}.png" for file in files.removesuffix(".png").split(".png "))
    for file in (first, second):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert find_pairs(tmp_path) == [Pair(name, first, second)]


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_read_as_it_comes(tmp_path: Path, name: str) -> None:
    task, split, files, expected, others = SETS[name]
    for file in (files + " " + others).split():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    first, second = (tmp_path / file for file in files.split())
    assert find_pairs(tmp_path, task, split) == [Pair(expected, first, second)]


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listing(folder: Path) -> list[str]:
        if folder.name == "lost+found":
            raise PermissionError
        return real(folder)

    for folder in ("ir", "vis", "lost+found"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    real = os.listdir
    monkeypatch.setattr(os, "listdir", listing)
    assert [pair.name for pair in find_pairs(tmp_path)] == ["a"]


def test_every_task_has_layouts() -> None:
    assert LAYOUTS.keys() == TASKS.keys()
    for layouts in LAYOUTS.values():
        assert len(set(layouts)) == len(layouts)
        for first, second in layouts:
            assert "NAME" in first
            assert "NAME" in second
            assert first != second


@pytest.mark.parametrize(
    ("folder", "task"),
    [
        ("roadscene", "infrared-visible"),
        ("msrs", "infrared-visible"),
        ("tno", "infrared-visible"),
        ("m3fd", "infrared-visible"),
        ("llvip", "infrared-visible"),
        ("medical/mri-ct", "mri-ct"),
        ("medical/mri-pet", "mri-pet"),
        ("medical/mri-spect", "mri-spect"),
        ("mef", "multi-exposure"),
        ("mff", "multi-focus"),
    ],
)
def test_real_sets_are_read(shared: Path, folder: str, task: str) -> None:
    root = shared / "data" / folder
    validation = find_pairs(root, task, "val")
    training = find_pairs(root, task, "train")
    assert len(validation) == len((root / "val.txt").read_text().split())
    assert len(training) == len((root / "train.txt").read_text().split())
    assert sorted(validation + training) == find_pairs(root, task)
    assert len(check_pairs(validation[:3], 64)) == min(3, len(validation))
