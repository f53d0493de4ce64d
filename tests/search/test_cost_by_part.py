"""Costs of the parts of a network: they sum up, and each belongs to what it is called."""

from hypothesis import given, settings

from timfuse.genotypes import CellGenotype, Genotype
from timfuse.operators import build_network, count_flops, count_parameters
from timfuse.search.cost_by_part import cost_by_part

from ..random_genotypes import genotypes


@given(genotypes())
@settings(max_examples=20)
def test_the_costs_of_the_parts_are_those_of_the_network(genotype):
    network = build_network(genotype)
    parts = cost_by_part(genotype, network, 48, 64)
    inputs = 3 if genotype.network == "refine" else 2
    assert sum(part.flops for part in parts) == count_flops(network, 48, 64, inputs)
    assert sum(part.parameters for part in parts) == count_parameters(network)
    assert all(part.flops >= 0 and part.parameters >= 0 for part in parts)
    assert len({part.name for part in parts}) == len(parts)
    if genotype.network != "refine":  # which lists its branches one after the other
        chosen = [operator for cell in genotype.cells for operator in cell.operators]
        assert [part.operator for part in parts if part.operator] == chosen


def test_the_parts_of_a_pyramid_network():
    cells = (
        CellGenotype("successive", ("plain_k3", "identity"), level=0),
        CellGenotype("multi_scale", ("plain_k3",), level=1),
    )
    genotype = Genotype("small", "mri-ct", "pyramid", (4, 8), cells, norm="none", stem="half", head="bands")
    parts = {part.name: part for part in cost_by_part(genotype, build_network(genotype), 32, 64)}
    assert list(parts) == [
        "stem",
        "downs",
        "ups",
        "cell 1, successive at 1/2 size",
        "cell 1, step 1",
        "cell 1, step 2",
        "cell 2, multi-scale at 1/4 size",
        "cell 2, step 1",
        "heads",
        "base",
    ]
    assert parts["ups"][1:3] == (2 * 8 * 4 * 8 * 16, 8 * 4)
    assert parts["base"][1:3] == (2 * 9 * 8 * 3 * 8 * 16, 9 * 8 * 3 + 3)
    assert parts["cell 1, successive at 1/2 size"][1:3] == (2 * 4 * 4 * 16 * 32, 4 * 4)
    # A multi-scale cell has each operator at three sizes.
    full = 2 * 9 * 8 * 8 * 8 * 16
    assert parts["cell 2, step 1"].flops == 3 * full
    assert parts["cell 1, step 2"] == ("cell 1, step 2", 0, 0, "identity")
