"""The probabilities of each decision over a search, as curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..drawing.panels import COLOURS, make_panels, save_panels
from ..genotypes import parse_operator
from ..runtime.errors import UserError

_DASHES = ("-", "--", ":")  # the next one whenever all colours are used up
_FEW = 8  # panels that two columns hold
_LEADERS = 3  # operators in full colour in each panel


def draw_probabilities(history: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw a panel for each edge with a line for each candidate operator into probabilities.svg and .png in a folder.

    Raises:
        UserError: If the history holds no probabilities yet, or a file cannot be written.
    """
    rows = [row for row in history if "probability" in row]
    if not rows:
        raise UserError("the run's history holds no operator probabilities yet; wait until its warm-up is over")
    last = rows[-1]["probability"]
    words = {
        name: f"{name} channels" if name.isdecimal() else parse_operator(name).in_words
        for names in last.values()
        for name in names
    }
    operators = [name for name in words if not name.isdecimal()]
    widths = sorted((name for name in words if name.isdecimal()), key=int)
    leaders = {edge: sorted(names, key=lambda name: -names[name])[:_LEADERS] for edge, names in last.items()}
    titles = [f"{edge}: {words[first]} {last[edge][first]:.2f}" for edge, (first, *_) in leaders.items()]
    columns, size = (2, (5.2, 2.6)) if len(titles) <= _FEW else (4, (4.0, 2.2))
    figure, panels = make_panels(titles, columns=columns, size=size, same_axes=True)
    for panel, edge in zip(panels, last, strict=True):
        for name in last[edge]:
            # Operators and widths have their colours in all panels.
            index = (widths if name.isdecimal() else operators).index(name)
            panel.plot(
                [row["step"] for row in rows],
                [row["probability"][edge][name] for row in rows],
                _DASHES[index // len(COLOURS) % len(_DASHES)],
                color=COLOURS[index % len(COLOURS)],
                linewidth=2.2 if name == leaders[edge][0] else 1.1,
                alpha=1.0 if name in leaders[edge] else 0.6,
                label=words[name],
            )
        panel.set_ylim(0, 1)
    for panel in panels[::columns]:
        panel.set_ylabel("probability")
    return save_panels(figure, folder / "probabilities")
