"""Pictures as text in DOT, the language of graphviz."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

import graphviz
import networkx

from .graph import cell_subgraph
from .picture import EDGE, TEXT, Frame, Picture, node_colours, node_lines

_FONT = "DejaVu Sans,Helvetica,Arial,sans-serif"


def dot_text(picture: Picture) -> str:
    """Write a picture in DOT; graphviz chooses all positions."""
    dot = graphviz.Digraph(
        graph_attr={
            "label": _label([picture.title, picture.subtitle], 10, below=14),
            "labelloc": "t", "fontname": _FONT, "fontsize": "16", "fontcolor": TEXT,
            "nodesep": "0.3", "ranksep": "0.32", "newrank": "true", "pad": "0.2", "bgcolor": "white",
        },
        node_attr={
            "shape": "box", "style": "rounded,filled", "fontname": _FONT, "fontsize": "11", "fontcolor": TEXT,
            "margin": "0.14,0.06", "height": "0.35", "penwidth": "1.2",
        },
        edge_attr={"color": EDGE, "arrowsize": "0.65", "penwidth": "1.1"},
    )  # fmt: skip
    graph = picture.graph
    for node, attributes in graph.nodes(data=True):
        if attributes["cell"] is None:
            _add_node(dot, node, attributes)
    for index, frame in picture.frames.items():
        _add_cell(dot, index, frame, cell_subgraph(graph, index))
    direct = networkx.transitive_reduction(graph).edges
    for before, after in graph.edges:
        # Heavy edges keep chains straight; an edge around other nodes must not pull them out of line.
        chain = graph.out_degree(before) == graph.in_degree(after) == 1
        dot.edge(before, after, weight="1000" if chain else "4" if (before, after) in direct else "0")
    return str(dot.source)


def _add_cell(dot: graphviz.Digraph, index: int, frame: Frame, inside: networkx.DiGraph) -> None:
    levels = _levels(inside)
    with dot.subgraph(name=f"cluster_{index}") as cluster:
        cluster.attr(label="", style="rounded,filled", fillcolor=frame.fill, color=frame.border, margin="12")
        # A node beside the first step: edges would run through a cluster's own label, but not through a node.
        label = f"label_{index}"
        cluster.node(label, _label([frame.label, frame.detail]), shape="plaintext", style="", margin="0.04")
        for level, nodes in groupby(sorted(inside, key=levels.__getitem__), key=levels.__getitem__):
            with cluster.subgraph() as row:
                row.attr(rank="same")
                for node in nodes:
                    _add_node(row, node, inside.nodes[node])
                    if level == 0:
                        row.edge(label, node, style="invis")


def _levels(cell: networkx.DiGraph) -> dict[str, int]:
    """Return the level of each node: between its earliest and its latest, so that short branches stand midway."""
    above, below = (
        {node: level for level, nodes in enumerate(networkx.topological_generations(graph)) for node in nodes}
        for graph in (cell, cell.reverse())
    )
    return {node: (above[node] + max(above.values()) - below[node]) // 2 for node in cell}


def _add_node(dot: graphviz.Digraph, node: str, attributes: Mapping[str, object]) -> None:
    fill, border = node_colours(attributes)
    shape = {"shape": "circle", "margin": "0", "width": "0.3", "height": "0.3"} if attributes["role"] == "add" else {}
    order = {"ordering": "out"} if attributes["role"] in ("preprocess", "split") else {}
    dot.node(node, _label(node_lines(attributes)), fillcolor=fill, color=border, **shape, **order)


def _label(lines: Sequence[str], size: int = 9, below: int = 0) -> str:
    """Return an HTML label: the first line bold, the others in `size` points, with free points below."""
    first, *others = (escape(line) for line in lines if line)
    rows = [f"<B>{first}</B>", *(f"<FONT POINT-SIZE='{size}'>{line}</FONT>" for line in others)]
    cells = "".join(f"<TR><TD>{row}</TD></TR>" for row in rows)
    space = f"<TR><TD HEIGHT='{below}'></TD></TR>" if below else ""
    return f"<<TABLE BORDER='0' CELLBORDER='0' CELLSPACING='0' CELLPADDING='0'>{cells}{space}</TABLE>>"
