"""Layered layouts: edges lead down, nothing overlaps, chains are straight, and the positions are optimal."""

import itertools

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timfuse.drawing.layout import _minimise, assign_layers, find_shortcuts, place

GAP = (20.0, 30.0)


@st.composite
def graphs(draw):
    """Draw a directed acyclic graph with sizes of its nodes."""
    count = draw(st.integers(1, 12))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else [])
    size = st.tuples(st.floats(1, 200), st.floats(1, 80))
    return graph, {node: draw(size) for node in graph}


@settings(max_examples=100, deadline=None)
@given(drawn=graphs())
def test_edges_lead_down_and_nothing_overlaps(drawn):
    graph, sizes = drawn
    layout = place(graph, sizes, GAP)
    for before, after in graph.edges:
        bottom = layout.centres[before][1] + sizes[before][1] / 2
        top = layout.centres[after][1] - sizes[after][1] / 2
        assert top - bottom >= GAP[1] - 1e-6
    for a, b in itertools.combinations(graph, 2):
        apart = np.abs(np.subtract(layout.centres[a], layout.centres[b]))
        needed = (np.array(sizes[a]) + sizes[b]) / 2
        assert apart[0] >= needed[0] + GAP[0] - 0.1 or apart[1] >= needed[1] + GAP[1] - 1e-6
    # Edges pass between the nodes, never through one.
    for edge, spans in layout.routes.items():
        for (x, top, bottom), node in itertools.product(spans, graph):
            level = top - 1e-6 <= layout.centres[node][1] <= bottom + 1e-6
            assert node in edge or not level or abs(x - layout.centres[node][0]) >= sizes[node][0] / 2


def test_chains_are_straight_and_branches_symmetric():
    graph = networkx.DiGraph()
    networkx.add_path(graph, ["in", "a1", "a2", "a3", "out"])
    networkx.add_path(graph, ["in", "b1", "out", "end"])
    graph.add_edge("in", "out")
    sizes = {node: (100.0, 20.0) for node in graph}
    layout = place(graph, sizes, GAP)
    assert [layout.centres[node][0] for node in ("a1", "a2")] == pytest.approx([layout.centres["a3"][0]] * 2, abs=0.1)
    assert assign_layers(graph)["b1"] == assign_layers(graph)["a2"]
    assert find_shortcuts(graph) == {("in", "out")}
    middle = (layout.centres["a2"][0] + layout.centres["b1"][0]) / 2
    assert [layout.centres[node][0] for node in ("in", "out", "end")] == pytest.approx([middle] * 3, abs=0.5)


def test_crossings_are_removed():
    graph = networkx.DiGraph([("a", "y"), ("b", "x"), ("a", "p"), ("b", "q"), ("p", "x2"), ("q", "y2")])
    xs = {node: x for node, (x, _) in place(graph, {n: (10.0, 10.0) for n in graph}, GAP).centres.items()}
    assert (xs["a"] < xs["b"]) == (xs["y"] < xs["x"]) == (xs["p"] < xs["q"])


@settings(max_examples=60, deadline=None)
@given(
    wishes=st.lists(st.floats(-100, 100), min_size=2, max_size=6),
    distance=st.floats(0, 50),
)
def test_the_quadratic_programme_meets_its_optimality_conditions(wishes, distance):
    size = len(wishes)
    quadratic = np.eye(size) + 0.1 * np.ones((size, size))
    constraints = np.eye(size)[1:] - np.eye(size)[:-1]
    bounds = np.full(size - 1, distance) - np.diff(wishes)
    start = np.cumsum(np.concatenate([[0.0], np.maximum(bounds, 0.0)]))
    x = _minimise(quadratic, constraints, bounds, start)
    slack = constraints @ x - bounds
    assert slack.min() >= -1e-6
    multipliers = np.linalg.lstsq(constraints.T, quadratic @ x, rcond=None)[0]
    assert np.allclose(constraints.T @ multipliers, quadratic @ x, atol=1e-6)
    assert multipliers.min() >= -1e-5
    assert np.abs(multipliers * slack).max() <= 1e-4
