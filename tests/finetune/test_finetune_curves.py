import numpy as np
import pytest
import torch
from PIL import Image

from timfuse.data import Objects
from timfuse.downstream import Detections
from timfuse.downstream.label_drawing import with_labels
from timfuse.finetune.finetune_curves import draw_finetuning, show_labels
from timfuse.runtime.errors import UserError

GREY = np.full((12, 16, 3), 100, np.uint8)


def boxes(*corners):
    return torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)


def test_sources_labels_and_findings_stand_side_by_side():
    first, second, image = (torch.full((1, 1, 12, 16), level / 255) for level in (10, 20, 100))
    truth = Objects(boxes([2, 3, 10, 8]), torch.tensor([0]))
    found = Detections(boxes(), torch.tensor([]), torch.tensor([], dtype=torch.int64))
    sheet = show_labels(first, second, image, truth, found)
    assert (sheet.shape, sheet.dtype) == ((12, 64, 3), np.uint8)
    parts = np.split(sheet, 4, 1)
    assert [part[0, 0, 0] for part in parts] == [10, 20, 100, 100]
    assert np.array_equal(parts[2], with_labels(GREY, truth))
    assert np.array_equal(parts[3], GREY)


def history(steps, *names):
    rows = [{"step": step, **dict.fromkeys(names, 1 / (step + 1))} for step in range(steps)]
    for row in rows[1::2]:
        row["validation"] = {"mean": {"loss": 1.0, "AP50": 0.5}, "person": {"AP50": None}}
    return rows


@pytest.mark.parametrize(
    ("names", "reference", "titles"),
    [
        (("task_loss",), None, ["task loss", "validation loss", "validation AP50"]),
        (
            ("task_loss", "fusion_loss", "excess", "multiplier"),
            1.1,
            ["task loss", "fusion loss", "excess", "multiplier", "validation loss", "validation AP50"],
        ),
    ],
)
def test_there_is_a_panel_for_each_loss_and_score(tmp_path, monkeypatch, names, reference, titles):
    figures = []
    monkeypatch.setattr(
        "timfuse.finetune.finetune_curves.save_panels", lambda figure, path: figures.append((figure, path)) or []
    )
    draw_finetuning(history(6, *names), tmp_path, reference, None if reference is None else 2.0)
    ((figure, path),) = figures
    panels = figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == titles
    assert path == tmp_path / "curves"
    scored = {panel.get_title(loc="left"): panel.lines for panel in panels}
    assert scored["validation AP50"][0].get_xydata().tolist() == [[2, 0.5], [4, 0.5], [6, 0.5]]
    assert scored["task loss"][0].get_xydata().tolist() == [[step, 1 / step] for step in range(1, 7)]
    assert len(scored["validation loss"]) == (1 if reference is None else 3)
    if "excess" in names:  # beside what was promised
        assert [line.get_ydata()[0] for line in scored["excess"]] == [1.0, 0]


def test_the_path_of_the_multiplier_is_drawn_also_of_a_long_run_and_with_gaps(tmp_path):
    rows = history(1001, "task_loss", "multiplier")
    rows[7]["multiplier"] = None
    rows[1]["validation"]["mean"]["AP50"] = None
    files = draw_finetuning(rows, tmp_path, 1.0)
    assert [path.name for path in files] == ["curves.svg", "curves.png"]
    with Image.open(files[1]) as image:
        image.verify()
    assert "<svg" in files[0].read_text()


def test_no_validation_yet(tmp_path):
    with pytest.raises(UserError, match="holds no validation yet; wait for the first one"):
        draw_finetuning(history(1, "task_loss"), tmp_path, None)
