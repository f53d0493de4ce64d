import pytest
from PIL import Image

from timfuse.meta_init.adaptation_curves import draw_adaptation, draw_training
from timfuse.runtime.errors import UserError

TASKS = ("infrared-visible", "mri-ct", "mri-pet", "multi-exposure", "multi-focus")


def history(steps=6, tasks=TASKS):
    rows = [{"step": step, "loss": 1 / (step + 1), "query": {}} for step in range(steps)]
    for step in range(1, steps, 2):
        scores = {task: {f"after {count}": 1 / (step + count + 1) for count in (0, 1, 5)} for task in tasks}
        rows[step]["validation"] = {"mean": {"loss": 1 / step}, **scores}
    return rows


def curves(tasks=TASKS, factor=1.0):
    return {task: {count: factor / (count + 1) for count in (0, 1, 5, 20)} for task in tasks}


def assert_whole(files, names):
    assert [path.name for path in files] == names
    with Image.open(files[1]) as image:
        image.verify()
    assert "<svg" in files[0].read_text()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_adaptation_has_a_panel_for_each_task(tmp_path, count):
    methods = {"meta-initialisation": curves(TASKS[:count]), "random weights": curves(TASKS[:count], 2.0)}
    assert_whole(draw_adaptation(methods, tmp_path / "pictures"), ["adaptation.svg", "adaptation.png"])


def test_training_has_a_panel_for_each_task_and_no_mean(tmp_path):
    assert_whole(draw_training(history(), tmp_path), ["curves.svg", "curves.png"])


def test_the_same_curves_give_the_same_picture(tmp_path):
    files = [draw_training(history(), tmp_path / name) for name in ("a", "b")]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()


def test_a_loss_that_was_not_finite_leaves_a_gap(tmp_path):
    rows = history()
    rows[3]["validation"]["multi-focus"]["after 5"] = None  # as the history writes it
    draw_training(rows, tmp_path)


@pytest.mark.parametrize("rows", [[], history(1)])
def test_no_validation_yet(tmp_path, rows):
    with pytest.raises(UserError, match="holds no validation yet; wait for the first one"):
        draw_training(rows, tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "pictures").write_text("")
    with pytest.raises(UserError):
        draw_training(history(), tmp_path / "pictures")
