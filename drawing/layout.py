"""Placing a directed acyclic graph in layers from top to bottom, for drawing without graphviz."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx
import numpy as np
from numpy.typing import NDArray

Node = Hashable
# A vertical piece of an edge: x, and the y where it starts and ends (downwards).
Span = tuple[float, float, float]

_ORDER_SWEEPS = 12
# How strongly an edge pulls its ends above each other: in a chain without branches (which is to be straight),
# at a fork, and where it only goes round other nodes (which it must not pull out of line). The last number
# holds what has no edge.
_CHAIN, _MAIN, _SIDE, _RIDGE = 1e4, 1.0, 1e-3, 1e-5
_TINY = 1e-6


@dataclass(frozen=True)
class Layout:
    """Where everything stands, in points; y grows downwards from 0 at the top.

    Args:
        centres: Centre (x, y) of each node.
        routes: For each edge, the vertical spans that it passes between its two ends.
        height: Height of the whole.
    """

    centres: dict[Node, tuple[float, float]]
    routes: dict[tuple[Node, Node], list[Span]]
    height: float


def assign_layers(graph: networkx.DiGraph) -> dict[Node, int]:
    """Give each node a layer, so that every edge leads to a higher one.

    A node stands in the middle of the layers that the longest paths through it leave free, which brings
    branches of different lengths level with each other.

    Args:
        graph: A directed acyclic graph.

    Returns:
        The layer of each node, from 0 on.
    """
    order = list(networkx.topological_sort(graph))
    earliest: dict[Node, int] = {}
    for node in order:
        earliest[node] = max((earliest[before] + 1 for before in graph.predecessors(node)), default=0)
    last = max(earliest.values(), default=0)
    latest: dict[Node, int] = {}
    for node in reversed(order):
        latest[node] = min((latest[after] - 1 for after in graph.successors(node)), default=last)
    return {node: (earliest[node] + latest[node]) // 2 for node in graph}


def find_shortcuts(graph: networkx.DiGraph) -> set[tuple[Node, Node]]:
    """Find the edges whose ends are joined by a longer way too.

    Args:
        graph: A directed acyclic graph.

    Returns:
        The edges.
    """
    return set(graph.edges) - set(networkx.transitive_reduction(graph).edges)


def is_chain(graph: networkx.DiGraph, before: Node, after: Node) -> bool:
    """Tell whether an edge is the only one from its start and the only one to its end."""
    return bool(graph.out_degree(before) == graph.in_degree(after) == 1)


def place(graph: networkx.DiGraph, sizes: Mapping[Node, tuple[float, float]], gap: tuple[float, float]) -> Layout:
    """Place the nodes of a graph so that few edges cross and most run straight down.

    Layers by longest paths, order within them by barycentres, positions by a small quadratic programme.

    Args:
        graph: A directed acyclic graph.
        sizes: Width and height of each node, in points.
        gap: Horizontal distance between neighbours and vertical distance between layers, in points.

    Returns:
        The layout.
    """
    layers = assign_layers(graph)
    # An edge over several layers becomes a chain of narrow stand-ins, one per layer, that keep its way free.
    chains: dict[tuple[Node, Node], list[Node]] = {}
    shortcuts = find_shortcuts(graph)
    expanded: networkx.DiGraph = networkx.DiGraph()
    expanded.add_nodes_from(graph)
    widths = {node: sizes[node][0] for node in graph}
    level = dict(layers)
    for before, after in graph.edges:
        passed = range(layers[before] + 1, layers[after])
        chain: list[Node] = [(before, after, layer) for layer in passed]
        chains[before, after] = chain
        widths.update(dict.fromkeys(chain, 0.0))
        level.update(zip(chain, passed, strict=True))
        weight = _SIDE if (before, after) in shortcuts else _MAIN
        networkx.add_path(expanded, [before, *chain, after], weight=weight)
    for start, end in expanded.edges:
        if is_chain(expanded, start, end):
            expanded.edges[start, end]["weight"] = _CHAIN
    rows = _order(expanded, level)
    xs = _positions(expanded, rows, widths, gap[0])

    tops: list[float] = []
    heights = [max((sizes[node][1] for node in row if node in layers), default=0.0) for row in rows]
    y = 0.0
    for height in heights:
        tops.append(y)
        y += height + gap[1]
    centres = {node: (xs[node], tops[layer] + heights[layer] / 2) for node, layer in layers.items()}
    routes = {
        edge: [(xs[node], tops[level[node]], tops[level[node]] + heights[level[node]]) for node in chain]
        for edge, chain in chains.items()
    }
    return Layout(centres, routes, y - gap[1])


def _order(graph: networkx.DiGraph, level: Mapping[Node, int]) -> list[list[Node]]:
    """Order each layer by barycentres, sweeping down and up, and keep the order with the fewest crossings."""
    rows: list[list[Node]] = [[] for _ in range(max(level.values()) + 1)]
    # Depth first from the sources, so that branches start side by side.
    for node in networkx.dfs_preorder_nodes(graph):
        rows[level[node]].append(node)
    best, fewest = [list(row) for row in rows], _crossings(graph, rows)
    for sweep in range(_ORDER_SWEEPS):
        downwards = sweep % 2 == 0
        for row in rows if downwards else reversed(rows):
            ranks = _ranks(rows)
            barycentres = {}
            for node in row:
                neighbours = list(graph.predecessors(node) if downwards else graph.successors(node)) or [node]
                barycentres[node] = sum(ranks[other] for other in neighbours) / len(neighbours)
            row.sort(key=barycentres.__getitem__)
        crossings = _crossings(graph, rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _ranks(rows: Sequence[Sequence[Node]]) -> dict[Node, int]:
    return {node: index for row in rows for index, node in enumerate(row)}


def _crossings(graph: networkx.DiGraph, rows: Sequence[Sequence[Node]]) -> int:
    rank = _ranks(rows)
    count = 0
    for row in rows:
        edges = [(rank[node], rank[after]) for node in row for after in graph.successors(node)]
        count += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(edges) for c, d in edges[:i])
    return count


def _positions(
    graph: networkx.DiGraph, rows: Sequence[Sequence[Node]], widths: Mapping[Node, float], gap: float
) -> dict[Node, float]:
    """Find the positions with the shortest edges that keep the order and the distances within each layer."""
    index = {node: number for number, node in enumerate(graph)}
    tension = _RIDGE * np.eye(len(index))
    for start, end, attributes in graph.edges(data=True):
        i, j, weight = index[start], index[end], attributes["weight"]
        tension[[i, j], [i, j]] += weight
        tension[[i, j], [j, i]] -= weight
    feasible = np.zeros(len(index))
    pairs, distances = [], []
    for row in rows:
        for left, right in pairwise(row):
            pairs.append((index[left], index[right]))
            distances.append((widths[left] + widths[right]) / 2 + gap)
            feasible[index[right]] = feasible[index[left]] + distances[-1]
    apart = np.zeros((len(pairs), len(index)))
    for number, (left, right) in enumerate(pairs):
        apart[number, [left, right]] = -1.0, 1.0
    xs = _minimise(tension, apart, np.array(distances), feasible)
    return {node: round(float(xs[number]), 2) for node, number in index.items()}


def _minimise(
    quadratic: NDArray[np.float64],
    constraints: NDArray[np.float64],
    bounds: NDArray[np.float64],
    x: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Minimise x'Qx subject to Ax >= b by the active-set method (Nocedal and Wright 2006, algorithm 16.3).

    Args:
        quadratic: Q (n, n), positive definite.
        constraints: A (m, n) with linearly independent rows.
        bounds: b (m,).
        x: (n,) a point that satisfies the constraints.

    Returns:
        The minimum (n,).
    """
    size = len(x)
    active: list[int] = []
    while True:
        held = constraints[active]
        system = np.block([[quadratic, -held.T], [held, np.zeros((len(active), len(active)))]])
        solution = np.linalg.solve(system, np.concatenate([-quadratic @ x, np.zeros(len(active))]))
        step, multipliers = solution[:size], solution[size:]
        speed = constraints @ step
        slack = constraints @ x - bounds
        blocking = [row for row in range(len(bounds)) if row not in active and speed[row] < -_TINY]
        first = min(blocking, key=lambda row: slack[row] / -speed[row], default=None)
        if first is not None and slack[first] < -speed[first]:
            x = x + step * max(slack[first], 0.0) / -speed[first]
            active.append(first)
            continue
        x = x + step
        if not active or multipliers.min() >= -_TINY:
            return x
        active.pop(int(multipliers.argmin()))
