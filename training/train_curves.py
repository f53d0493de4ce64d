"""The curves of a training: losses and metrics at each validation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..drawing.panels import COLOURS, QUIET, block_means, make_panels, save_panels, validated_rows


def draw_curves(
    history: Sequence[Mapping[str, Any]],
    folder: Path,
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
) -> list[Path]:
    """Draw a panel for the loss and one for each metric.

    Args:
        metrics: Scores by method, as in the provenance of a trained genotype. All but "best" are drawn as levels.

    Raises:
        UserError: If the history holds no validation yet, or a file cannot be written.
    """
    rows = validated_rows(history)
    steps = [row["step"] + 1 for row in rows]
    curves = {name: [row["validation"]["mean"][name] for row in rows] for name in rows[0]["validation"]["mean"]}
    levels = {method: scores["mean"] for method, scores in (metrics or {}).items() if method != "best"}
    titles = [name if values[-1] is None else f"{name} {values[-1]:.4g}" for name, values in curves.items()]
    figure, panels = make_panels(titles)
    for panel, (name, values) in zip(panels, curves.items(), strict=True):
        if name == "loss":
            panel.plot(*block_means(history, name), color=QUIET, label="training")
        panel.plot(steps, values, ".-", color=COLOURS[0], label="validation")
        for colour, (method, scores) in zip(COLOURS[1:], levels.items(), strict=False):
            panel.axhline(scores[name], color=colour, linewidth=1, linestyle="--", label=method)
    return save_panels(figure, folder / "curves")
