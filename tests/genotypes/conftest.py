"""Genotypes to test with: examples of every kind of network and cell, and random ones."""

import pytest
from hypothesis import strategies as st

from timfuse.drawing import genotype_graph
from timfuse.genotypes import ALL_OPERATORS, CELL_KINDS, TASKS, CellGenotype, Genotype

NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
WORDS = st.text(st.characters(codec="latin-1", exclude_categories=["C", "Z"]), min_size=1, max_size=20)  # are drawn
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
KNOWN_TASKS = st.tuples(st.sampled_from(list(TASKS)), st.none())
OWN_TASKS = st.tuples(
    st.from_regex("[A-Za-z0-9][A-Za-z0-9._-]{0,39}", fullmatch=True).filter(lambda task: task not in TASKS),
    st.tuples(WORDS, WORDS),
)
PLAIN = st.recursive(
    SCALARS,
    lambda item: st.lists(item, max_size=3) | st.dictionaries(st.text(max_size=9), item, max_size=3),
    max_leaves=8,
)


@st.composite
def genotypes(draw, max_cells=3, max_operators=3):
    """Draw any valid genotype."""
    network = draw(st.sampled_from(["fusion", "refine", "detfusion"]))
    operators = st.lists(st.sampled_from(ALL_OPERATORS), min_size=1, max_size=max_operators).map(tuple)
    kinds = st.sampled_from(list(CELL_KINDS))
    if network == "detfusion":
        sources = []
    elif network == "fusion":
        sources = draw(st.lists(st.none(), min_size=1, max_size=max_cells))
    else:
        extra = st.lists(st.sampled_from(["first", "second"]), max_size=max_cells - 1)
        sources = draw(extra.flatmap(lambda more: st.permutations(["first", "second", *more])))
    task, words = draw(KNOWN_TASKS | OWN_TASKS)
    return Genotype(
        name=draw(NAMES),
        task=task,
        sources=words,
        colour=draw(st.sampled_from([None, "first", "second", "both"])),
        network=network,
        channels=2 * draw(st.integers(1, 64)),
        cells=tuple(CellGenotype(draw(kinds), draw(operators), source) for source in sources),
        norm="none" if network == "detfusion" else draw(st.sampled_from(["batch", "group", "none"])),
        stem=draw(st.sampled_from(["full", "half"])) if network == "fusion" else "full",
        head="direct" if network == "refine" else draw(st.sampled_from(["direct", "envelope"])),
        merge=draw(st.sampled_from(["gated", "concat"])) if network == "refine" else None,
        provenance=draw(st.dictionaries(st.text(max_size=9), PLAIN, max_size=3)),
    )


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
    )
    return Genotype('odd <&"> $x$ \\N', "multi-focus", "fusion", 32, cells, stem="half")


@pytest.fixture(scope="session")
def any_genotype():
    """The strategy that draws any valid genotype."""
    return genotypes()


@pytest.fixture(scope="session")
def some_parameters():
    """The function that makes up parameters for every module of a genotype's network."""
    return made_up
