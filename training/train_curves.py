"""The pictures of a training: how the losses and metrics went, and examples of what the network fuses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import write_pixels
from ..runtime.errors import UserError
from ..runtime.figures import save_figure

_TRAINED, _VALIDATED, _REFERENCES = "#B8C4D0", "#0072B2", ("#D55E00", "#009E73", "#CC79A7")
_COLUMNS = 4
_GAP = 4  # pixels between two examples


def draw_examples(examples: Mapping[str, NDArray[np.uint8]], folder: Path) -> list[Path]:
    """Put pictures below each other, pixel by pixel.

    Args:
        examples: by name, all (H, W) or all (H, W, 3), of any sizes; none at all draws nothing.
        folder: where examples.png goes.

    Returns:
        The file.

    Raises:
        UserError: the file cannot be written.
    """
    if not examples:
        return []
    images = list(examples.values())
    width = max(image.shape[1] for image in images)
    height = sum(image.shape[0] + _GAP for image in images) - _GAP
    sheet = np.full((height, width, *images[0].shape[2:]), 255, np.uint8)
    top = 0
    for image in images:
        sheet[top : top + image.shape[0], : image.shape[1]] = image
        top += image.shape[0] + _GAP
    path = folder / "examples.png"
    write_pixels(path, sheet)
    return [path]


def draw_curves(
    history: Sequence[dict[str, Any]], folder: Path, references: Mapping[str, Mapping[str, float]] | None = None
) -> list[Path]:
    """Draw one panel for the loss and one for each metric.

    Args:
        history: rows of `history.jsonl`; those with `validation` count.
        folder: where curves.svg and curves.png go.
        references: by method, what it scores without any training; drawn as a level.

    Returns:
        The two files.

    Raises:
        UserError: the history holds no validation yet, or a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in history if "validation" in row]
    if not rows:
        raise UserError("the run's history holds no validation yet; wait for the first one")
    steps = [row["step"] + 1 for row in rows]
    names = list(rows[0]["validation"]["mean"])
    lines = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(3.2 * _COLUMNS, 2.4 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
    for panel, name in zip(panels, names, strict=False):
        if name == "loss":
            trained = np.array([row["loss"] for row in history])
            size = max(1, len(trained) // 200)  # of a block that becomes one point
            blocks = trained[: len(trained) // size * size].reshape(-1, size).mean(1)
            panel.plot(size * (np.arange(len(blocks)) + 0.5), blocks, color=_TRAINED, label="training")
        values = [row["validation"]["mean"][name] for row in rows]
        panel.plot(steps, values, ".-", color=_VALIDATED, label="validation")
        for colour, (method, scores) in zip(_REFERENCES, (references or {}).items(), strict=False):
            panel.axhline(scores[name], color=colour, linewidth=1, linestyle="--", label=method)
        panel.set_title(f"{name} {values[-1]:.4g}", fontsize=10, loc="left")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    for panel in panels[len(names) - min(_COLUMNS, len(names)) : len(names)]:
        panel.set_xlabel("step")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return save_figure(figure, folder / "curves")
