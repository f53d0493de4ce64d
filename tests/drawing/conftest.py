"""What the tests of the pictures share: a network with every kind of cell, and numbers of parameters."""

import pytest

from timfuse.drawing import genotype_graph
from timfuse.genotypes import CellGenotype, Genotype


def made_up(genotype):
    """Make up parameters for every module of a genotype's network, each with its own number of elements."""
    modules = [module for _, modules in genotype_graph(genotype).nodes(data="modules") for module in modules]
    return {f"{module}.0.weight": 1000 + 7 * number for number, module in enumerate(modules)}


@pytest.fixture
def every_kind():
    """A fusion network with every kind of cell and a name that every file format must escape."""
    cells = (
        CellGenotype("decomposition", ("residual_k3_d1", "non_local_k5", "identity")),
        CellGenotype("successive", ("separable_k7",)),
        CellGenotype("multi_scale", ("spatial_attention_k5", "dense_k7_d2", "channel_attention_k3")),
        CellGenotype("stage", ("inverted_k3", "plain_k5")),
    )
    return Genotype('odd <&"> $x$ \\N', "multi-focus", "fusion", 32, cells, stem="half")


@pytest.fixture(scope="session")
def some_parameters():
    """The function that makes up parameters for every module of a genotype's network."""
    return made_up
