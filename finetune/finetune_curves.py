"""The pictures of a finetuning: what is found in the images, and how losses, scores and the multiplier went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data import Objects
from ..downstream import Detections
from ..downstream.label_drawing import with_labels
from ..runtime.errors import UserError
from ..runtime.figures import save_figure

_LIMIT = "#D55E00"
_BLOCKS = 200  # points of a training curve


def show_labels(
    first: Tensor, second: Tensor, image: Tensor, truth: Objects | Tensor, prediction: Detections | Tensor
) -> NDArray[np.uint8]:
    """Put side by side the sources, the image with its labels and the image with what was found.

    Args:
        first: (1, 1, H, W) in [0, 1].
        second: (1, 1, H, W) in [0, 1].
        image: (1, 1, H, W) in [0, 1].
        truth: Objects, or a mask (H, W).
        prediction: Detections, or a mask (H, W).

    Returns:
        (H, 4 W, 3).
    """
    plain, other, fused = (
        np.repeat((each[0, 0].cpu().numpy() * 255).round().astype(np.uint8)[..., None], 3, 2)
        for each in (first, second, image)
    )
    return np.concatenate([plain, other, with_labels(fused, truth), with_labels(fused, prediction)], 1)


def draw_finetuning(
    history: Sequence[Mapping[str, Any]], folder: Path, reference: float | None = None, tolerance: float | None = None
) -> list[Path]:
    """Draw a panel for each training loss, each score, and for the multiplier of a constraint.

    Args:
        history: rows of `history.jsonl`.
        folder: where curves.svg and curves.png go.
        reference: the fusion loss on the validation pairs at the start, drawn as a level.
        tolerance: the part by which the fusion loss may exceed that, drawn where a multiplier prices it.

    Returns:
        The two files.

    Raises:
        UserError: the history holds no validation yet, or a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    validated = [row for row in history if "validation" in row]
    if not validated:
        raise UserError("the run's history holds no validation yet; wait for the first one")
    trained = [
        name
        for name in ("detector_loss", "task_loss", "fusion_loss", "excess", "multiplier", "weight_of_first")
        if any(name in row for row in history)
    ]
    scores = [name for name in validated[0]["validation"] if " " not in name]
    panels_wanted = [*trained, *(f"validation {name}" for name in scores)]
    lines = -(-len(panels_wanted) // 4)
    figure = Figure(figsize=(12.8, 2.4 * lines + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, 4, squeeze=False).flatten()
    for panel, name in zip(panels, trained, strict=False):
        rows = [(row["step"] + 1, row[name]) for row in history if row.get(name) is not None]
        size = max(1, len(rows) // _BLOCKS)  # of a block that becomes one point
        points = np.array(rows[: len(rows) // size * size], float).reshape(-1, size, 2).mean(1)
        panel.plot(points[:, 0], points[:, 1], color="#0072B2", linewidth=1)
        if name == "excess" and tolerance is not None:
            panel.axhline(tolerance, color=_LIMIT, linewidth=1, linestyle="--", label="promised")
            panel.legend(fontsize=8, frameon=False)
    for panel, name in zip(panels[len(trained) :], scores, strict=False):
        panel.plot([row["step"] + 1 for row in validated], [row["validation"][name] for row in validated], ".-")
        if name == "loss" and reference is not None:
            panel.axhline(reference, color=_LIMIT, linewidth=1, linestyle="--", label="before")
            panel.legend(fontsize=8, frameon=False)
    for panel, name in zip(panels, panels_wanted, strict=False):
        panel.set_title(name.replace("_", " "), fontsize=10, loc="left")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(panels_wanted) :]:
        panel.set_visible(False)
    return save_figure(figure, folder / "curves")
