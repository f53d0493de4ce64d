"""A picture as DOT text, for graphviz to place and draw."""

from html import escape

import graphviz
import networkx

from .graph import cell_subgraph
from .layout import assign_layers, find_shortcuts, is_chain
from .picture import EDGE, TEXT, Frame, Picture, node_colours, node_lines

_FONT = "Helvetica,Arial,sans-serif"


def dot_graph(picture: Picture) -> graphviz.Digraph:
    """Write a picture in graphviz's language.

    Args:
        picture: What to show.

    Returns:
        The graph; its `source` is the DOT text, which needs no program.
    """
    title = f"<B>{escape(picture.title)}</B><BR/><FONT POINT-SIZE='10'>{escape(picture.subtitle)}</FONT><BR/> "
    dot = graphviz.Digraph(
        graph_attr={
            "label": f"<{title}>", "labelloc": "t", "fontname": _FONT, "fontsize": "16", "fontcolor": TEXT,
            "nodesep": "0.3", "ranksep": "0.32", "newrank": "true", "pad": "0.2", "bgcolor": "white",
        },
        node_attr={
            "shape": "box", "style": "rounded,filled", "fontname": _FONT, "fontsize": "11", "fontcolor": TEXT,
            "margin": "0.14,0.06", "height": "0.35", "penwidth": "1.2",
        },
        edge_attr={"color": EDGE, "arrowsize": "0.65", "penwidth": "1.1"},
    )  # fmt: skip
    for node, attributes in picture.graph.nodes(data=True):
        if attributes["cell"] is None:
            _add_node(dot, node, attributes)
    for index, frame in picture.frames.items():
        with dot.subgraph(name=f"cluster_{index}") as cluster:
            cluster.attr(label="", style="rounded,filled", fillcolor=frame.fill, color=frame.border, margin="12")
            _add_cell(cluster, cell_subgraph(picture.graph, index), f"label_{index}", frame)
    shortcuts = find_shortcuts(picture.graph)
    for before, after in picture.graph.edges:
        # Chains are to be straight; a shortcut must not pull the steps that it goes round out of line.
        chain, shortcut = is_chain(picture.graph, before, after), (before, after) in shortcuts
        dot.edge(before, after, weight="1000" if chain else "0" if shortcut else "4")
    return dot


def _add_cell(cluster: graphviz.Digraph, inside: networkx.DiGraph, label: str, frame: Frame) -> None:
    lines = [f"<B>{escape(frame.label)}</B>"]
    if frame.detail:
        lines.append(f"<FONT POINT-SIZE='9'>{escape(frame.detail)}</FONT>")
    # A node beside the first step: edges would run through a cluster's own label, but not through a node.
    cluster.node(label, f"<{'<BR/>'.join(lines)}>", shape="plaintext", style="", margin="0.04")
    layers = assign_layers(inside)
    for layer in sorted(set(layers.values())):
        # Branches of different lengths stand level with each other.
        with cluster.subgraph() as level:
            level.attr(rank="same")
            for node, attributes in inside.nodes(data=True):
                if layers[node] == layer:
                    _add_node(level, node, attributes)
                    if layer == 0:
                        level.edge(label, node, style="invis")


def _add_node(dot: graphviz.Digraph, node: str, attributes: dict) -> None:
    fill, border = node_colours(attributes)
    label, *details = (escape(line) for line in node_lines(attributes))
    lines = [f"<B>{label}</B>", *(f"<FONT POINT-SIZE='9'>{detail}</FONT>" for detail in details)]
    shape = {"shape": "circle", "margin": "0", "width": "0.3", "height": "0.3"} if attributes["role"] == "add" else {}
    order = {"ordering": "out"} if attributes["role"] in ("preprocess", "split") else {}
    rows = "".join(f"<TR><TD>{line}</TD></TR>" for line in lines)
    table = f"<<TABLE BORDER='0' CELLBORDER='0' CELLSPACING='0' CELLPADDING='0'>{rows}</TABLE>>"
    dot.node(node, table, fillcolor=fill, color=border, **shape, **order)
