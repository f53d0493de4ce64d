from pathlib import Path

import pytest

from timfuse.data import write_pixels
from timfuse.genotypes import TASKS
from timfuse.meta_init import MetaInitConfig
from timfuse.meta_init.meta_init_config import EpisodeDataSection, TaskSection
from timfuse.objectives import FusionLoss, training_loss
from timfuse.runtime.errors import UserError

from .conftest import NAMES, blobs, write_pairs


@pytest.fixture
def opened(folders):
    """A function that opens a task with keys of its section; by default of the small data sets."""

    def open_task(name, seed=0, data=None, **content):
        section = TaskSection.model_validate(content, strict=False)
        data = EpisodeDataSection(
            **{"root": folders, "crop": 20, "support": 2, "query": 2, "validation": 0.2} | (data or {})
        )
        return data.open_task(name, section, seed)

    return open_task


def test_pairs_are_dealt_out_between_training_and_validation(opened):
    tasks = [opened("mri-ct"), opened("infrared-visible", weight=2.0)]
    assert [(task.name, task.weight) for task in tasks] == [("mri-ct", 1), ("infrared-visible", 2)]
    for task in tasks:
        assert sorted(task.training + task.validation) == list(range(len(NAMES[task.name])))
        assert len(task.validation) == round(0.2 * len(NAMES[task.name]))
        assert all(task.blocks)


def test_blocks_are_patients(opened):
    task = opened("mri-ct")
    patients = [{task.source.names[index][:-3] for index in block} for block in task.blocks]
    assert all(len(patient) == 1 for patient in patients)
    assert len(set.union(*patients)) == len(patients)


def test_the_split_depends_on_the_seed_alone(opened):
    splits = [opened("infrared-visible", seed).validation for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_a_task_with_several_folders_has_the_pairs_of_all(opened, tmp_path):
    more = write_pairs(tmp_path / "more", ["x1", "x2", "x3", "x4", "x5"], ("ir", "vis"))
    task = opened("infrared-visible", root=["infrared-visible", str(more)])
    assert sorted(task.training + task.validation) == list(range(15))
    held = [task.source.names[index] for index in task.validation]
    assert sum(name.startswith("x") for name in held) == 1  # of each folder a fifth
    for block in task.blocks:
        assert len({index < 10 for index in block}) == 1
    with_others = {task.source.names[index]: index for index in range(15)}
    alone = opened("infrared-visible", data={"root": tmp_path, "support": 1, "query": 1}, root="more")
    for name in ("x1", "x5"):
        for one, other in zip(
            task.source[with_others[name]], alone.source[alone.source.names.index(name)], strict=True
        ):
            assert (one == other).all()


def test_lists_of_names_are_kept(opened, tmp_path):
    root = write_pairs(tmp_path / "a", [f"{index}" for index in range(8)], ("ir", "vis"))
    (root / "train.txt").write_text("0\n1\n2\n3\n")
    (root / "val.txt").write_text("6\n7\n")
    task = opened("infrared-visible", root=str(root))
    assert sorted(task.training) == [0, 1, 2, 3]
    assert task.validation == (6, 7)


def test_synthetic_pairs_of_every_task_by_default():
    data = EpisodeDataSection(synthetic_pairs=20)
    tasks = [data.open_task(name, section, 0) for name, section in MetaInitConfig().used_tasks.items()]
    assert [task.name for task in tasks] == list(TASKS)
    assert [task.loss for task in tasks] == [training_loss(name) for name in TASKS]
    assert all(len(task.source) == 20 for task in tasks)
    medical = [task for task in tasks if task.name.startswith("mri")]
    assert len({task.source[0][0].tobytes() for task in medical}) == 3  # no two tasks show the same head


def test_a_task_of_ones_own_has_two_folders_and_the_usual_loss(opened):
    task = opened("thermal", sources=["xray", "neutron"])
    assert task.source.names == tuple(NAMES["thermal"])
    assert task.loss == FusionLoss()


def test_unusual_folders_of_a_known_task(opened):
    task = opened("mri-ct", root="thermal", sources=["xray", "neutron"])
    assert task.source.names == tuple(NAMES["thermal"])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"root": "nowhere"}, "nowhere does not exist; check the path"),
        ({"root": "thermal"}, "holds no mri-ct pairs"),
        ({"root": "thermal", "sources": ["xray", "proton"]}, "thermal/proton does not exist; check its name"),
        ({"loss": {"fidelity": 1}, "data": {"crop": 16}}, "data.crop = 16 is too small for this loss"),
    ],
)
def test_what_cannot_be_is_one_line(opened, task, message):
    with pytest.raises(UserError) as caught:
        opened("mri-ct", **task)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_with_images_of_two_sizes(opened, tmp_path):
    root = write_pairs(tmp_path / "a", ["1", "2", "3", "4", "5", "6"], ("mri", "ct"))
    write_pixels(root / "ct" / "3.png", blobs(0)[:24])
    with pytest.raises(UserError, match=r"the pair 3 has two sizes: .* is 28x28, .* is 28x24; bring both to one"):
        opened("mri-ct", root=str(root))


def test_real_folders(shared):
    data = EpisodeDataSection(root=shared / "data")
    roots = {"mri-ct": "medical/mri-ct", "multi-exposure": "mef", "multi-focus": "mff"}
    tasks = [data.open_task(name, TaskSection(root=Path(root)), 0) for name, root in roots.items()]
    assert all(len(task.blocks) > 2 for task in tasks)
    assert all(len(task.validation) > 1 for task in tasks)
