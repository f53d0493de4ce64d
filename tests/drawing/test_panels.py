import matplotlib
import numpy as np
import pytest
from PIL import Image

from timfuse.drawing.panels import block_means, make_panels, save_panels, validated_rows
from timfuse.runtime.errors import UserError


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 3)), (7, (3, 3))])
def test_there_is_a_panel_for_each_title_and_no_other(count, shape):
    titles = [f"metric {index}" for index in range(count)]
    figure, panels = make_panels(titles, columns=3)
    assert [panel.get_title(loc="left") for panel in panels] == titles
    assert figure.axes == panels
    assert panels[0].get_gridspec().get_geometry() == shape


def test_the_lowest_panel_of_each_column_names_the_steps():
    for same_axes in (False, True):
        _, panels = make_panels(list("abcde"), columns=3, same_axes=same_axes)
        assert [panel.get_xlabel() for panel in panels] == ["", "", "step", "step", "step"]
        assert all(panel.xaxis.get_tick_params()["labelbottom"] for panel in panels[2:])


def test_the_legend_holds_each_label_once(tmp_path):
    figure, (one, two) = make_panels(["a", "b"])
    one.plot([0, 1], [0, 1], label="training", linewidth=3, alpha=0.1)
    one.plot([0, 1], [1, 1])
    two.plot([0, 1], [0, 2], label="training")
    two.axhline(0.5, label="maximum")
    save_panels(figure, tmp_path / "curves")
    assert labels(figure) == ["training", "maximum"]
    assert {line.get_linewidth() for line in figure.legends[0].get_lines()} == {1.5}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_legend_is_not_wider_than_the_figure(tmp_path, count):
    figure, panels = make_panels(["a"] * count)
    for index in range(10):
        panels[0].plot([0, 1], [0, index], label=f"spatial attention {index}×{index}")
    save_panels(figure, tmp_path / "curves")
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1


def test_the_same_figure_gives_the_same_bytes_and_real_text(tmp_path):
    before = dict(matplotlib.rcParams)
    for name in ("one", "two"):
        figure, (panel,) = make_panels(["loss 0.25"])
        panel.plot([0, 1], [0, 1], label="training")
        files = save_panels(figure, tmp_path / name / "curves")
        assert files == [tmp_path / name / "curves.svg", tmp_path / name / "curves.png"]
    for name in ("curves.svg", "curves.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert ">loss 0.25<" in files[0].read_text(encoding="utf-8")
    with Image.open(files[1]) as image:
        assert image.width == 655
    assert dict(matplotlib.rcParams) == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a part of this path is a file"):
        save_panels(make_panels(["a"])[0], tmp_path / "file" / "curves")


def test_only_rows_with_a_validation_are_drawn():
    rows = [{"step": 0}, {"step": 1, "validation": {"mean": {"loss": 1.0}}}]
    assert validated_rows(rows) == rows[1:]
    with pytest.raises(UserError, match="holds no validation yet; wait for the first one"):
        validated_rows(rows[:1])


def test_values_of_few_steps_stay_and_those_of_many_are_averaged_in_blocks():
    rows = [{"step": step, "loss": float(step)} for step in range(1001)]
    rows[2]["loss"] = None
    assert np.array_equal(block_means(rows[:4], "loss"), [[1, 2, 4], [0, 1, 3]])
    steps, values = block_means(rows, "loss")
    assert steps.shape == (200,)
    assert np.array_equal(steps, values + 1)
    assert values[:2].tolist() == [(0 + 1 + 3 + 4 + 5) / 5, 8.0]
