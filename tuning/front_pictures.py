"""The pictures of a study: quality against cost, or by trial, as SVG and PNG and as an interactive page."""

import html
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..drawing.panels import COLOURS, QUIET, make_panels, save_panels
from ..runtime.files import write_atomically
from .points import Front, Point

_FRONT = COLOURS[0]

# Buttons that work offline.
_BUTTONS = {"displaylogo": False, "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]]}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --paper: #f4f5f7; --ink: #16191d; --quiet: #626a74; --line: #dcdfe4; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #0e1113; --ink: #e8eaed; --quiet: #99a1ab; --line: #2c3238; }}
}}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }}
main {{ max-width: 1280px; margin: 0 auto; padding: 20px clamp(12px, 3vw, 32px) 40px; }}
header {{ display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 14px; margin-bottom: 16px; }}
h1 {{ font-size: 1.45rem; line-height: 1.2; letter-spacing: -.01em; margin: 0; }}
.quiet {{ color: var(--quiet); font-size: .87rem; }}
.card {{ background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 8px;
  height: min(74vh, 760px); }}
.card > div {{ height: 100%; }}
</style>
</head>
<body>
<main>
<header><h1>{title}</h1><span class="quiet">{subtitle}</span></header>
<noscript><p>This page needs JavaScript to draw. It loads nothing from the network.</p></noscript>
<div class="card">{plot}</div>
</main>
</body>
</html>
"""


def draw_front(front: Front, folder: Path) -> list[Path]:
    """Draw all trials, and the front or the best quality so far, into front.svg and front.png.

    Raises:
        UserError: If a file cannot be written.
    """
    figure, (panel,) = make_panels([""], size=(7.2, 4.8), across=front.cost or "trial")
    panel.scatter(*_places(front.points), color=QUIET, s=28, label="trials")
    panel.step(*_edge(front), where="post", color=_FRONT, linewidth=1.2)
    panel.scatter(*_places(front.chosen), color=_FRONT, s=40, zorder=3, label=_edge_name(front))
    style: dict[str, Any] = {"textcoords": "offset points", "horizontalalignment": "right", "fontsize": 9}
    for point, x, y in zip(front.chosen, *_places(front.chosen), strict=True):
        # The line of the front leaves the area above and left of a point empty.
        panel.annotate(str(point.number), (x, y), (-4, 4), color=_FRONT, **style)
    panel.set_ylabel(front.quality)
    panel.margins(0.08)
    return save_panels(figure, folder / "front")


def write_page(front: Front, folder: Path) -> tuple[list[Path], str]:
    """Write front.html, with settings and operators of the trial under the pointer; return the file and a note.

    Raises:
        UserError: If the file cannot be written.
    """
    if find_spec("plotly") is None:
        return [], "no interactive page: install what draws it with `pip install timfuse[tune]`"
    from plotly.graph_objects import Figure, Scatter

    def scatter(points: tuple[Point, ...], name: str, **style: object) -> Scatter:
        across, up = _places(points)
        texts = ["<br>".join(map(html.escape, point.lines(front.cost))) for point in points]
        return Scatter(x=across, y=up, hovertext=texts, hoverinfo="text", name=name, **style)

    across, up = _edge(front)
    others = tuple(point for point in front.points if point not in front.chosen)
    figure = Figure(
        [
            Scatter(x=across, y=up, mode="lines", hoverinfo="skip", showlegend=False).update(
                line={"color": _FRONT, "width": 1.5, "shape": "hv"}
            ),
            scatter(others, "trials", mode="markers", marker={"color": QUIET, "size": 9}),
            scatter(
                front.chosen,
                _edge_name(front),
                mode="markers+text",
                marker={"color": _FRONT, "size": 11},
                text=[str(point.number) for point in front.chosen],
                textposition="top left",
                textfont={"color": _FRONT},
            ),
        ]
    )
    figure.update_layout(
        template="simple_white",
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
        xaxis={"title": {"text": front.cost or "trial"}, "showgrid": True},
        yaxis={"title": {"text": front.quality}, "showgrid": True},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left", "bgcolor": "#ffffff", "font": {"color": "#16191d"}},
    )
    path = folder / "front.html"
    plot = figure.to_html(
        full_html=False, include_plotlyjs=True, div_id="front", default_height="100%", config=_BUTTONS
    )
    subtitle = f"{len(front.points)} trials; point at one to see what it is"
    write_atomically(path, _PAGE.format(title=html.escape(f"Study {front.study}"), subtitle=subtitle, plot=plot))
    return [path], ""


def _places(points: tuple[Point, ...]) -> tuple[list[float], list[float]]:
    """Return the coordinates of points: cost or trial number, and quality."""
    across = [point.number if point.cost is None else point.cost for point in points]
    return across, [point.quality for point in points]


def _edge(front: Front) -> tuple[list[float], list[float]]:
    """Return the coordinates of the front, or of the best quality so far."""
    if front.cost is not None:
        return _places(front.chosen)
    across, up = _places(tuple(sorted(front.points, key=lambda point: point.number)))
    return across, list(accumulate(up, max))


def _edge_name(front: Front) -> str:
    return "best" if front.cost is None else "front"
