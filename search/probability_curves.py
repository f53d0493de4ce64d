"""How the operator probabilities of each edge went over a search, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..genotypes import parse_operator
from ..runtime.errors import UserError
from ..runtime.figures import save_figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; a second round is dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
DASHES = ("-", "--", ":")
LABELLED = 3  # lines named at their end in each panel


def draw_probabilities(history: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw one panel per edge with a line per candidate.

    Args:
        history: rows of `history.jsonl`; those with `probability` count.
        folder: where probabilities.svg and probabilities.png go.

    Returns:
        The two files.

    Raises:
        UserError: the history holds no probabilities yet, or a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in history if "probability" in row]
    if not rows:
        raise UserError("the run's history holds no operator probabilities yet; wait until its warm-up is over")
    steps = [row["step"] for row in rows]
    edges = list(rows[0]["probability"])
    operators = list(rows[0]["probability"][edges[0]])
    columns = min(2, len(edges))
    lines = -(-len(edges) // columns)
    figure = Figure(figsize=(5.2 * columns, 2.6 * lines + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for panel, edge in zip(panels, edges, strict=False):
        final = rows[-1]["probability"][edge]
        leaders = sorted(operators, key=lambda name: -final[name])[:LABELLED]
        for index, name in enumerate(operators):
            panel.plot(
                steps,
                [row["probability"][edge][name] for row in rows],
                DASHES[index // len(COLOURS) % len(DASHES)],
                color=COLOURS[index % len(COLOURS)],
                linewidth=2.2 if name == leaders[0] else 1.1,
                alpha=1.0 if name in leaders else 0.6,
                label=parse_operator(name).in_words,
            )
        panel.set_title(
            f"{edge}: {parse_operator(leaders[0]).in_words} {final[leaders[0]]:.2f}", fontsize=10, loc="left"
        )
        panel.set_ylim(0, 1)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(edges) :]:
        panel.set_visible(False)
    for panel in panels[-columns:]:
        panel.set_xlabel("step")
    for panel in panels[::columns]:
        panel.set_ylabel("probability")
    handles, labels = panels[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    for line in legend.get_lines():  # the first panel's leaders are no one's leaders here
        line.set(linewidth=1.5, alpha=1.0)
    return save_figure(figure, folder / "probabilities")
