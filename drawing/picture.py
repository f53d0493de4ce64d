"""The content of a picture: nodes, the frames around the cells, their texts and colours."""

from collections.abc import Mapping
from dataclasses import dataclass

import networkx

from ..genotypes.genotype import CELL_KINDS, SOURCES, Genotype
from .graph import cell_subgraph, genotype_graph

TEXT = "#1F2933"
EDGE = "#66727F"
_PLAIN = ("#FFFFFF", "#9AA5B1")
_SOURCE = ("#E4E7EB", "#52606D")
# Paul Tol's "light" scheme: readers with any kind of colour vision can tell the fills apart, and dark text is legible.
_OPERATORS = {
    "dense": ("#77AADD", "#3F78B5"),
    "residual": ("#EE8866", "#BC5433"),
    "dilated": ("#EEDD88", "#B39B2A"),
    "separable": ("#99DDFF", "#4AA3D1"),
    "channel_attention": ("#FFAABB", "#D0647C"),
    "spatial_attention": ("#BBCC33", "#849112"),
    "non_local": ("#44BB99", "#1F8468"),
    "plain": ("#AAAADD", "#6A6AB0"),
    "inverted": ("#CCAA99", "#8A6A58"),
    "identity": ("#DDDDDD", "#8D8D8D"),
}
_OTHER_OPERATOR = ("#AAAA00", "#757500")
# Pale colours, so that the operators inside stand out.
_CELLS = {
    "successive": ("#F1F5FA", "#7488A6"),
    "multi_scale": ("#FBF6E9", "#B08C3E"),
    "decomposition": ("#F6F1FA", "#8A6FB0"),
    "stage": ("#F1F5FA", "#7488A6"),
}


@dataclass(frozen=True)
class Frame:
    """The frame around a cell.

    Args:
        label: Name of the cell, such as "Cell 1 · multi-scale".
        detail: Number of the cell's parameters in words, or "".
    """

    label: str
    detail: str
    fill: str
    border: str


@dataclass(frozen=True)
class Picture:
    """A picture without positions, which graphviz chooses."""

    graph: networkx.DiGraph
    title: str
    subtitle: str
    frames: dict[int, Frame]


def network_picture(genotype: Genotype, parameters: Mapping[str, int] | None = None) -> Picture:
    """Make the picture of a whole network; the arguments are those of `genotype_graph`."""
    graph = genotype_graph(genotype, parameters)
    widths = "-".join(map(str, genotype.widths))
    facts = [genotype.task, f"{genotype.network} network", f"{widths} channels", _total(graph)]
    frames = {index: _frame(genotype, graph, index) for index in range(len(genotype.cells))}
    return Picture(graph, genotype.name, _joined(facts), frames)


def cell_picture(genotype: Genotype, index: int, parameters: Mapping[str, int] | None = None) -> Picture:
    """Make the picture of the cell `genotype.cells[index]` between its input and its output."""
    network = genotype_graph(genotype, parameters)
    inside = cell_subgraph(network, index)
    shared = {"detail": "", "operator": None, "cell": None, "modules": (), "parameters": None}
    graph: networkx.DiGraph = networkx.DiGraph()
    graph.add_node("input", role="source", label="Input", **shared)
    graph.add_nodes_from(inside.nodes(data=True))
    graph.add_node("output", role="output", label="Output", **shared)
    graph.add_edges_from(inside.edges)
    for before, after in network.edges:
        if before not in inside and after in inside:
            graph.add_edge("input", after)
        elif before in inside and after not in inside:
            graph.add_edge(before, "output")
    source, level = genotype.cells[index].source, genotype.cells[index].level
    branch = "" if source is None else f"{genotype.source_words[SOURCES.index(source)]} branch"
    size = "" if level is None else f"at 1/{2 ** (level + 1)} size"
    facts = [branch, size, f"{genotype.widths[level or 0]} channels", _total(graph)]
    title = f"{genotype.name} · cell {index + 1}"
    return Picture(graph, title, _joined(facts), {index: _frame(genotype, network, index)})


def node_lines(node: Mapping[str, object]) -> list[str]:
    """Return the text of a node with these attributes, one to three lines with the label first."""
    lines = [str(node["label"])]
    if node["detail"]:
        lines.append(str(node["detail"]))
    if node["parameters"] is not None and node["modules"]:
        lines.append(_counted(node["parameters"]))
    return lines


def node_colours(node: Mapping[str, object]) -> tuple[str, str]:
    """Return the colours of inside and border of a node with these attributes."""
    if node["role"] == "operator":
        return _OPERATORS.get(str(node["operator"]), _OTHER_OPERATOR)
    return _SOURCE if node["role"] in ("source", "output") else _PLAIN


def _frame(genotype: Genotype, graph: networkx.DiGraph, index: int) -> Frame:
    cell = genotype.cells[index]
    label = f"Cell {index + 1} · {CELL_KINDS[cell.kind]}"
    return Frame(label, _total(cell_subgraph(graph, index)), *_CELLS[cell.kind])


def _total(graph: networkx.DiGraph) -> str:
    counts = [node["parameters"] for _, node in graph.nodes(data=True) if node["parameters"] is not None]
    return _counted(sum(counts)) if counts else ""


def _counted(parameters: object) -> str:
    if parameters == 0:
        return "no parameters"
    return "1 parameter" if parameters == 1 else f"{parameters:,} parameters"


def _joined(facts: list[str]) -> str:
    return " · ".join(fact for fact in facts if fact)
