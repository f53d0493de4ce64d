"""The pictures of a meta-initialisation: how it adapts to each task, and how it came to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runtime.errors import UserError
from ..runtime.figures import save_figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_COLUMNS = 3

Curves = Mapping[str, Mapping[int, float]]  # by task, by number of steps


def draw_adaptation(methods: Mapping[str, Curves], folder: Path) -> list[Path]:
    """Draw one panel for each task: the loss against the steps of adaptation.

    Args:
        methods: by what the adaptation starts from.
        folder: where adaptation.svg and adaptation.png go.

    Returns:
        The two files.

    Raises:
        UserError: a file cannot be written.
    """
    panels = {
        task: {method: curves[task] for method, curves in methods.items()} for task in next(iter(methods.values()))
    }
    return _draw(panels, folder / "adaptation", "steps of adaptation")


def draw_training(history: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw one panel for each task: the validation loss before and after adaptation against the steps of the training.

    Args:
        history: rows of `history.jsonl`; those with `validation` count.
        folder: where curves.svg and curves.png go.

    Returns:
        The two files.

    Raises:
        UserError: the history holds no validation yet, or a file cannot be written.
    """
    rows = [row for row in history if "validation" in row]
    if not rows:
        raise UserError("the run's history holds no validation yet; wait for the first one")
    panels = {
        task: {
            f"{moment} steps": {row["step"] + 1: row["validation"][task][moment] for row in rows} for moment in scores
        }
        for task, scores in rows[0]["validation"].items()
        if task != "mean"
    }
    return _draw(panels, folder / "curves", "step")


def _draw(panels: Mapping[str, Mapping[str, Mapping[int, float]]], stem: Path, across: str) -> list[Path]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(1 + 2.9 * columns, 2.3 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel, (task, curves) in zip(axes, panels.items(), strict=False):
        for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):
            panel.plot(list(curve), list(curve.values()), ".-", color=colour, label=name)
        panel.set_title(task, fontsize=10, loc="left")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel(across, fontsize=8)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.tick_params(labelsize=8)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    axes[0].set_ylabel("loss")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return save_figure(figure, stem)
