"""The graph of a genotype: one way from the sources to the output, every operator, every parameter once."""

from dataclasses import replace

import networkx
import pytest
from hypothesis import given, settings
from torch import nn

from timfuse.drawing import genotype_graph
from timfuse.drawing.picture import cell_picture
from timfuse.genotypes import load_genotype, parse_operator, zoo_names
from timfuse.operators import DetFusionNetwork, FusionNetwork, PyramidNetwork, RefineNetwork

from ..random_genotypes import genotypes

COPIES = {"successive": 1, "multi_scale": 3, "decomposition": 2, "stage": 1}


@settings(max_examples=50, deadline=None)
@given(genotype=genotypes())
def test_everything_lies_between_the_sources_and_the_outputs(genotype):
    graph = genotype_graph(genotype)
    assert networkx.is_directed_acyclic_graph(graph)
    roles = dict(graph.nodes(data="role"))
    assert {node for node in graph if not graph.in_degree(node)} == {n for n in graph if roles[n] == "source"}
    assert {node for node in graph if not graph.out_degree(node)} == {n for n in graph if roles[n] == "output"}
    for source in ("first", "second"):
        assert networkx.has_path(graph, source, "output")


@settings(max_examples=50, deadline=None)
@given(genotype=genotypes())
def test_every_operator_is_there_in_order(genotype):
    graph = genotype_graph(genotype)
    for index, cell in enumerate(genotype.cells):
        nodes = [
            node
            for node in networkx.topological_sort(graph)
            if graph.nodes[node]["cell"] == index and graph.nodes[node]["role"] == "operator"
        ]
        assert len(nodes) == COPIES[cell.kind] * len(cell.operators)
        chains = {}
        for node in nodes:
            chains.setdefault(node.rpartition(".")[0], []).append(graph.nodes[node]["label"].lower())
        expected = [parse_operator(operator).in_words.lower() for operator in cell.operators]
        assert all(labels == expected for labels in chains.values())


@settings(max_examples=50, deadline=None)
@given(genotype=genotypes())
def test_made_up_parameters_add_up(some_parameters, genotype):
    parameters = some_parameters(genotype)
    graph = genotype_graph(genotype, parameters)
    for _, node in graph.nodes(data=True):
        assert node["parameters"] == sum(parameters[f"{module}.0.weight"] for module in node["modules"])


def network_of(genotype):
    """Build a genotype's network with a convolution in place of each operator."""

    def cells(source):
        return [(cell.kind, cell.operators) for cell in genotype.cells if cell.source == source]

    def build(name, channels):
        return nn.Conv2d(channels, channels, 1)

    if genotype.network == "fusion":
        return FusionNetwork(genotype.channels, cells(None), genotype.norm, genotype.stem, genotype.head, build)
    if genotype.network == "pyramid":
        levels = [(cell.level, cell.kind, cell.operators) for cell in genotype.cells]
        return PyramidNetwork(genotype.channels, levels, genotype.norm, genotype.head, build)
    if genotype.network == "detfusion":
        return DetFusionNetwork(genotype.channels, genotype.head)
    branches = cells("first"), cells("second")
    return RefineNetwork(genotype.channels, *branches, genotype.norm, genotype.merge, build)


@pytest.mark.parametrize("name", zoo_names())
def test_the_parameters_of_a_real_network_add_up(name):
    check_real_network(load_genotype(name))


def test_the_parameters_of_every_kind_of_cell_add_up(every_kind):
    check_real_network(every_kind)


def check_real_network(genotype):
    parameters = {name: value.numel() for name, value in network_of(genotype).named_parameters()}
    graph = genotype_graph(genotype, parameters)
    counts = dict(graph.nodes(data="parameters"))
    assert sum(counts.values()) == sum(parameters.values())
    for node, data in graph.nodes(data=True):
        if data["role"] == "operator":
            assert counts[node] > 0


def test_modules_are_told_apart_by_whole_names():
    genotype = load_genotype("tim_light")
    graph = genotype_graph(genotype, {"cells.1.operators.1.weight": 3, "stem.weight": 4})
    assert graph.nodes["cells.1.operators.1"]["parameters"] == 3
    assert graph.nodes["stem"]["parameters"] == 4
    with pytest.raises(ValueError, match=r"cells\.10\.operators\.1\.weight"):
        genotype_graph(genotype, {"cells.10.operators.1.weight": 3})


def test_without_parameters_there_are_no_counts():
    assert set(dict(genotype_graph(load_genotype("tim")).nodes(data="parameters")).values()) == {None}


def test_the_sources_have_the_words_of_the_users_own_task():
    own = replace(load_genotype("tim_ivif"), task="xray-neutron", sources=("X-ray", "neutron"))
    graph = genotype_graph(own)
    assert [graph.nodes[node]["label"] for node in ("first", "second")] == ["X-ray", "Neutron"]
    branches = [cell_picture(own, index).subtitle.split(" · ")[0] for index in range(4)]
    assert branches == ["X-ray branch"] * 2 + ["neutron branch"] * 2


def test_the_two_encoders_of_detfusion_meet_in_its_decoder():
    graph = genotype_graph(replace(load_genotype("detfusion"), head="envelope"))
    assert list(graph.predecessors("first_encoder")) == ["first"]
    assert list(graph.predecessors("merge")) == ["first_encoder", "second_encoder"]
    assert list(graph.predecessors("output")) == ["envelope"]


def test_the_blend_takes_the_mask_of_the_first_branch():
    graph = genotype_graph(load_genotype("tim_ivif"))
    first = "first_cells.1.operators.1"
    assert list(graph.predecessors("gate")) == [first]
    assert set(graph.predecessors("merge")) == {first, "gate", "second_cells.1.operators.1"}
    assert set(graph.predecessors("second_stem")) == {"fused", "second"}
