"""Figures of curves: one panel for each quantity, saved as SVG and PNG."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import UserError
from ..runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: readers with any kind of colour vision can tell the colours apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
QUIET = "#B8C4D0"

# In inches. Fixed margins take a third less time than matplotlib's layouts, which measure every text several times.
_LABEL_WIDTH = 1.9  # of a long label in the legend
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.72, 0.15, 0.3, 0.45  # beside a panel, for its labels and its title
_LEGEND = 0.4  # below the panels, for two lines of the legend
_LEGEND_LINE = 0.17
_POINTS = 200


def make_panels(
    titles: Sequence[str],
    columns: int = 4,
    *,
    size: tuple[float, float] = (3.2, 2.4),
    across: str = "step",
    same_axes: bool = False,
) -> "tuple[Figure, list[Axes]]":
    """Make a figure with a panel for each title.

    Args:
        size: Width and height of a panel, in inches.
        same_axes: Whether all panels show the same ranges.
    """
    from matplotlib.figure import Figure

    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    width, height = max(columns * size[0], 2.3 * _LABEL_WIDTH), rows * size[1]
    figure = Figure(figsize=(width, height + _LEGEND))
    panels = list(figure.subplots(rows, columns, sharex=same_axes, sharey=same_axes, squeeze=False).flat)
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        bottom=(_LEGEND + _BOTTOM) / (height + _LEGEND),
        top=1 - _TOP / (height + _LEGEND),
        wspace=(_LEFT + _RIGHT) / (width / columns - _LEFT - _RIGHT),
        hspace=(_BOTTOM + _TOP) / (height / rows - _BOTTOM - _TOP),
    )
    for unused in panels[len(titles) :]:
        unused.remove()
    panels = panels[: len(titles)]
    for title, panel in zip(titles, panels, strict=True):
        panel.set_title(title, fontsize=10, loc="left", y=1.0)  # with y, it is not moved away from the ticks
        panel.locator_params(nbins=5)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for lowest in panels[-columns:]:
        lowest.set_xlabel(across)
        lowest.tick_params(labelbottom=True)
    return figure, panels


def save_panels(figure: "Figure", stem: Path) -> list[Path]:
    """Write a figure as STEM.svg and STEM.png, with a legend of all labelled lines below the panels.

    The same figure gives the same bytes.

    Raises:
        UserError: If a file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    legends = [panel.get_legend_handles_labels() for panel in figure.axes]
    lines = {label: handle for legend in legends for handle, label in zip(*legend, strict=True)}
    if lines:
        columns = min(len(lines), int(figure.get_figwidth() / _LABEL_WIDTH))
        style: dict[str, Any] = {"fontsize": 8, "frameon": False}
        legend = figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=columns, **style)
        _make_room(figure, _LEGEND_LINE * max(0, -(-len(lines) // columns) - 2))
        for line in legend.get_lines():  # a line may stand out in one panel and not in another
            line.set(linewidth=1.5, alpha=1.0)
    svg, png = io.BytesIO(), io.BytesIO()
    # The canvases write, because `Figure.savefig` draws everything twice.
    figure.set_dpi(150)
    FigureCanvasAgg(figure).print_png(png)
    # Text is kept as text, so that readers can search and select it.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "timfuse"}):
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    files = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    for file, buffer in zip(files, (svg, png), strict=True):
        write_atomically(file, buffer.getvalue())
    return files


def _make_room(figure: "Figure", more: float) -> None:
    """Make a figure higher below its panels, by so many inches."""
    height, margins = figure.get_figheight(), figure.subplotpars
    figure.set_figheight(height + more)
    bottom, top = ((edge * height + more) / (height + more) for edge in (margins.bottom, margins.top))
    figure.subplots_adjust(bottom=bottom, top=top)


def validated_rows(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of a history that have a validation; without any, raise a UserError."""
    rows = [row for row in history if "validation" in row]
    if not rows:
        raise UserError("the run's history holds no validation yet; wait for the first one")
    return rows


def block_means(history: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """Average a value that is logged at each step over blocks, about 200 in a long run.

    Args:
        history: Rows of `history.jsonl`; those without the value, or with null, are left out.

    Returns:
        The number of finished steps and the value, (2, blocks).

    Example:
        >>> block_means([{"step": 0, "loss": 0.5}, {"step": 1, "loss": None}, {"step": 2, "loss": 0.25}], "loss")
        array([[1.  , 3.  ],
               [0.5 , 0.25]])
    """
    rows = [(row["step"] + 1, row[name]) for row in history if row.get(name) is not None]
    size = max(1, len(rows) // _POINTS)
    return np.array(rows[: len(rows) // size * size], float).reshape(-1, size, 2).mean(1).T
