"""The curves of a meta-initialisation: its adaptation to each task, and its training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..drawing.panels import COLOURS, make_panels, save_panels, validated_rows

Curves = Mapping[str, Mapping[int, float]]  # by task, by number of steps


def draw_adaptation(methods: Mapping[str, Curves], folder: Path) -> list[Path]:
    """Draw a panel for each task: the loss over the steps of adaptation.

    Args:
        methods: Curves by the name of the initial weights, each with the same tasks.

    Raises:
        UserError: If a file cannot be written.
    """
    tasks = next(iter(methods.values()))
    curves = {task: {method: by_task[task] for method, by_task in methods.items()} for task in tasks}
    return _draw(curves, folder / "adaptation", "steps of adaptation")


def draw_training(history: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw a panel for each task: the validation loss before and after adaptation over the steps of the training.

    Raises:
        UserError: If the history holds no validation yet, or a file cannot be written.
    """
    rows = validated_rows(history)
    curves = {
        task: {
            f"{moment} steps": {row["step"] + 1: row["validation"][task][moment] for row in rows} for moment in scores
        }
        for task, scores in rows[0]["validation"].items()
        if task != "mean"
    }
    return _draw(curves, folder / "curves", "step")


def _draw(curves: Mapping[str, Curves], stem: Path, across: str) -> list[Path]:
    figure, panels = make_panels(list(curves), columns=3, across=across)
    for panel, lines in zip(panels, curves.values(), strict=True):
        for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
            panel.plot(list(line), list(line.values()), ".-", color=colour, label=name)
        panel.locator_params(axis="x", integer=True)
    panels[0].set_ylabel("loss")
    return save_panels(figure, stem)
