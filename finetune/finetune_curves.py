"""The pictures of a finetuning: detections or masks, and the curves of losses, scores and multiplier."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data import Objects
from ..downstream import Detections
from ..downstream.label_drawing import with_labels
from ..drawing.panels import COLOURS, block_means, make_panels, save_panels, validated_rows

_TRAINED = ("detector_loss", "task_loss", "fusion_loss", "excess", "multiplier", "weight_of_first")  # at each step


def show_labels(
    first: Tensor,
    second: Tensor,
    image: Tensor,
    truth: Objects | Tensor | None,
    prediction: Detections | Tensor | None,
) -> NDArray[np.uint8]:
    """Put side by side the sources, the image with its labels and the image with the task network's prediction.

    Args:
        truth: Objects, or a mask (H, W); None to show the image as it is.
        prediction: Detections, or a mask (H, W); None to leave it out.

    Returns:
        (H, 4 W, 3) uint8, or (H, 3 W, 3) without a prediction.
    """
    plain, other, fused = (
        np.repeat((each[0, 0].cpu().numpy() * 255).round().astype(np.uint8)[..., None], 3, 2)
        for each in (first, second, image)
    )
    shown = [plain, other, fused if truth is None else with_labels(fused, truth)]
    return np.concatenate(shown if prediction is None else [*shown, with_labels(fused, prediction)], 1)


def draw_finetuning(
    history: Sequence[Mapping[str, Any]], folder: Path, reference: float | None = None, trivial: float | None = None
) -> list[Path]:
    """Draw a panel for each training loss, each score, and for the multiplier of a constraint.

    Args:
        reference: Fusion loss on the validation pairs at the start, drawn as a level.
        trivial: That of the best method without a network, drawn as a level, too.

    Raises:
        UserError: If the history holds no validation yet, or a file cannot be written.
    """
    rows = validated_rows(history)
    trained = [name for name in _TRAINED if any(name in row for row in history)]
    scores = list(rows[0]["validation"]["mean"])
    titles = [name.replace("_", " ") for name in trained] + [f"validation {name}" for name in scores]
    figure, panels = make_panels(titles)
    for panel, name in zip(panels, trained, strict=False):
        panel.plot(*block_means(history, name), color=COLOURS[0], linewidth=1)
        if name == "excess":
            panel.axhline(0, color=COLOURS[1], linewidth=1, linestyle="--", label="promised")
    for panel, name in zip(panels[len(trained) :], scores, strict=True):
        values = [row["validation"]["mean"][name] for row in rows]
        panel.plot([row["step"] + 1 for row in rows], values, ".-", color=COLOURS[0])
        if name == "loss" and reference is not None:
            panel.axhline(reference, color=COLOURS[2], linewidth=1, linestyle="--", label="loss before")
        if name == "loss" and trivial is not None:
            panel.axhline(trivial, color=COLOURS[3], linewidth=1, linestyle=":", label="loss without a network")
    return save_panels(figure, folder / "curves")
