"""A picture placed and drawn in Python, for machines without graphviz."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import networkx

from .graph import cell_subgraph
from .layout import Span, place
from .picture import EDGE, PNG_DPI, TEXT, Picture, node_colours, node_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Everything below is in points.
_TITLE, _SUBTITLE, _LABEL, _DETAIL = 15.0, 9.5, 10.0, 8.0
_LEADING = 1.3
_NODE_PADDING = (10.0, 6.0)
_ADD_SIZE = 18.0
_NODE_GAP = (22.0, 24.0)
_CELL_GAP = (30.0, 30.0)
_FRAME_PADDING = 14.0
_FRAME_HEADER = 24.0
_FRAME_LABEL_INSET = 10.0
_MARGIN = 20.0
_PORT_DISTANCE = 16.0

TextSize = Callable[[str, float, bool], tuple[float, float]]  # (text, size, bold) -> width, height


@dataclass(frozen=True)
class _Box:
    """A rectangle: its centre (x, y), width and height; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True)
class _Placement:
    """Where the nodes, the frames and the inner spans of the edges stand."""

    nodes: dict[str, _Box]
    frames: dict[int, _Box]
    spans: dict[tuple[str, str], list[Span]]
    height: float


def render_with_matplotlib(picture: Picture) -> dict[str, bytes]:
    """Draw a picture without graphviz; the same picture gives the same bytes.

    Args:
        picture: What to show.

    Returns:
        The contents of the "svg" and of the "png" file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",  # text stays text: it can be searched, selected and read aloud
        "svg.hashsalt": "timfuse",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],
    }
    with matplotlib.rc_context(settings):
        figure = Figure()
        _draw(figure, picture)
        files = {}
        for form, metadata in (
            ("svg", {"Date": None, "Title": picture.title}),
            ("png", {"Title": picture.title}),
        ):
            buffer = BytesIO()
            figure.savefig(buffer, format=form, dpi=PNG_DPI, metadata=metadata)
            files[form] = buffer.getvalue()
    return files


def _draw(figure: "Figure", picture: Picture) -> None:
    text_size = _text_measure()
    placement = _place(picture, text_size)
    boxes = [*placement.nodes.values(), *placement.frames.values()]
    left, right = min(box.x - box.width / 2 for box in boxes), max(box.x + box.width / 2 for box in boxes)
    titles = [(picture.title, _TITLE, True), (picture.subtitle, _SUBTITLE, False)]
    width = max(right - left, *(text_size(*title)[0] for title in titles)) + 2 * _MARGIN
    header = sum(size * _LEADING for _, size, _ in titles) + _MARGIN
    height = placement.height + header + 2 * _MARGIN

    figure.set_size_inches(width / 72, height / 72)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    middle = (left + right) / 2
    axes.set_xlim(middle - width / 2, middle + width / 2)
    axes.set_ylim(placement.height + _MARGIN, -header - _MARGIN)
    y = -header
    for title, size, bold in titles:
        y += size * _LEADING / 2
        _write(axes, middle, y, title, size, bold)
        y += size * _LEADING / 2
    for index, box in placement.frames.items():
        frame = picture.frames[index]
        _rectangle(axes, box, frame.fill, frame.border, 8)
        y = box.top + _FRAME_HEADER / 2
        _write(axes, box.x - box.width / 2 + _FRAME_LABEL_INSET, y, frame.label, _LABEL, True, "left")
        _write(axes, box.x + box.width / 2 - _FRAME_LABEL_INSET, y, frame.detail, _DETAIL, False, "right")
    for edge in picture.graph.edges:
        _edge(axes, picture.graph, edge, placement)
    for node, box in placement.nodes.items():
        _node(axes, picture.graph.nodes[node], box)


def _place(picture: Picture, text_size: TextSize) -> _Placement:
    """Place every cell by itself, then the cells as blocks among the other nodes: no frames overlap."""
    graph = picture.graph
    sizes = {node: _node_size(attributes, text_size) for node, attributes in graph.nodes(data=True)}
    owner = dict(graph.nodes(data="cell"))
    block = {node: node if owner[node] is None else owner[node] for node in graph}
    inner, middles = {}, {}
    for index, frame in picture.frames.items():
        inside = cell_subgraph(graph, index)
        inner[index] = place(inside, sizes, _NODE_GAP)
        # The edge from above comes in at the middle, between the frame's label and its number of parameters.
        middles[index] = inner[index].centres[next(networkx.topological_sort(inside))][0]
        reaches = [(x, sizes[node][0] / 2) for node, (x, _) in inner[index].centres.items()]
        reaches += [(x, 0.0) for route in inner[index].routes.values() for x, _, _ in route]
        half = max(abs(x - middles[index]) + reach for x, reach in reaches)
        room = max(text_size(frame.label, _LABEL, True)[0], text_size(frame.detail, _DETAIL, False)[0])
        width = 2 * max(half + _FRAME_PADDING, room + _FRAME_PADDING + _FRAME_LABEL_INSET)
        sizes[index] = (width, inner[index].height + _FRAME_HEADER + _FRAME_PADDING)

    blocks: networkx.DiGraph = networkx.DiGraph()
    blocks.add_nodes_from(dict.fromkeys(block[node] for node in graph))
    blocks.add_edges_from((block[a], block[b]) for a, b in graph.edges if block[a] != block[b])
    outer = place(blocks, sizes, _CELL_GAP)

    frames = {index: _Box(*outer.centres[index], *sizes[index]) for index in picture.frames}
    nodes = {}
    for node in graph:
        x, y = outer.centres[block[node]]
        if owner[node] is not None:
            inner_x, inner_y = inner[owner[node]].centres[node]
            x, y = x + inner_x - middles[owner[node]], frames[owner[node]].top + _FRAME_HEADER + inner_y
        nodes[node] = _Box(x, y, *sizes[node])
    spans = {}
    for a, b in graph.edges:
        if block[a] == block[b]:
            right, down = frames[owner[a]].x - middles[owner[a]], frames[owner[a]].top + _FRAME_HEADER
            routes = inner[owner[a]].routes[a, b]
            spans[a, b] = [(x + right, start + down, end + down) for x, start, end in routes]
        else:
            # Straight through the border of a frame, so that the bends stay outside.
            leave = [] if owner[a] is None else [(nodes[a].x, nodes[a].bottom, frames[owner[a]].bottom)]
            arrive = [] if owner[b] is None else [(nodes[b].x, frames[owner[b]].top, frames[owner[b]].top)]
            spans[a, b] = leave + outer.routes[block[a], block[b]] + arrive
    return _Placement(nodes, frames, spans, outer.height)


def _node_size(attributes: Mapping[str, object], text_size: TextSize) -> tuple[float, float]:
    if attributes["role"] == "add":
        return _ADD_SIZE, _ADD_SIZE
    label, *details = node_lines(attributes)
    width = max(text_size(label, _LABEL, True)[0], *(text_size(line, _DETAIL, False)[0] for line in details), 40.0)
    height = (_LABEL + _DETAIL * len(details)) * _LEADING
    return width + 2 * _NODE_PADDING[0], height + 2 * _NODE_PADDING[1]


def _node(axes: "Axes", attributes: Mapping[str, object], box: _Box) -> None:
    fill, border = node_colours(attributes)
    if attributes["role"] == "add":
        _rectangle(axes, box, fill, border, _ADD_SIZE / 2)
        _write(axes, box.x, box.y, str(attributes["label"]), _LABEL, True)
        return
    _rectangle(axes, box, fill, border, box.height / 2 if attributes["role"] in ("source", "output") else 5)
    y = box.top + _NODE_PADDING[1]
    for number, line in enumerate(node_lines(attributes)):
        size = _DETAIL if number else _LABEL
        _write(axes, box.x, y + size * _LEADING / 2, line, size, not number)
        y += size * _LEADING


def _edge(axes: "Axes", graph: networkx.DiGraph, edge: tuple[str, str], placement: _Placement) -> None:
    """Draw an edge: straight down within its spans, smooth bends between them, an arrowhead at the end."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    before, after = edge
    start, end = placement.nodes[before], placement.nodes[after]
    spans = placement.spans[edge]
    points = [(start.x, start.bottom, start.bottom), *spans]
    sideways = graph.nodes[after]["role"] == "add" and spans and abs(spans[-1][0] - end.x) > end.width
    if not sideways:
        x = end.x + _port(graph, edge, placement)
        points.append((x, end.top, end.top))
    vertices, codes = [(points[0][0], points[0][1])], [Path.MOVETO]
    for (x, _, bottom), (next_x, next_top, _) in pairwise(points):
        if bottom != vertices[-1][1]:
            vertices.append((x, bottom))
            codes.append(Path.LINETO)
        middle = (bottom + next_top) / 2
        vertices += [(x, middle), (next_x, middle), (next_x, next_top)]
        codes += [Path.CURVE4] * 3
    if sideways:
        x, _, bottom = points[-1]
        side = end.x + (end.width / 2 if x > end.x else -end.width / 2)
        vertices += [(x, bottom), (x, end.y), (x, end.y), (side, end.y)]
        codes += [Path.LINETO, *[Path.CURVE4] * 3]
    path = Path(vertices, codes)
    axes.add_patch(
        FancyArrowPatch(
            path=path,
            arrowstyle="-|>,head_length=4,head_width=2.2",
            mutation_scale=1,
            color=EDGE,
            linewidth=1.1,
        )
    )


def _port(graph: networkx.DiGraph, edge: tuple[str, str], placement: _Placement) -> float:
    """Spread the edges that come in at one node along its top, in the order in which they arrive.

    An edge from straight above stays in the middle.
    """
    before, after = edge

    def comes_from(source: str) -> float:
        spans = placement.spans[source, after]
        return spans[-1][0] if spans else placement.nodes[source].x

    if graph.nodes[after]["role"] == "add":
        return 0.0
    sources = sorted(graph.predecessors(after), key=comes_from)
    straight = [place for place, source in enumerate(sources) if abs(comes_from(source) - placement.nodes[after].x) < 1]
    middle = straight[0] if straight else (len(sources) - 1) / 2
    distance = min(_PORT_DISTANCE, 0.4 * placement.nodes[after].width / len(sources))
    return (sources.index(before) - middle) * distance


def _rectangle(axes: "Axes", box: _Box, fill: str, border: str, radius: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (box.x - box.width / 2, box.top)
    style = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(
        FancyBboxPatch(corner, box.width, box.height, style, facecolor=fill, edgecolor=border, linewidth=1.1)
    )


def _write(axes: "Axes", x: float, y: float, text: str, size: float, bold: bool, align: str = "center") -> None:
    weight = "bold" if bold else "normal"
    # A name may hold dollar signs, which must not become formulas.
    axes.text(x, y, text, size=size, weight=weight, color=TEXT, ha=align, va="center_baseline", parse_math=False)


def _text_measure() -> TextSize:
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer = RendererAgg(1, 1, 72)  # one pixel is one point

    def text_size(text: str, size: float, bold: bool) -> tuple[float, float]:
        font = FontProperties(size=size, weight="bold" if bold else "normal")
        width, height, _ = renderer.get_text_width_height_descent(text, font, ismath=False)
        return width, height

    return text_size
