"""A search space: networks are described by what they hold, and read back from that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timfuse.cost import Choices, SearchSpace
from timfuse.genotypes import CellGenotype

NAMES = ("plain_k3", "identity", "inverted_k3")
PYRAMID = {"norm": "none", "stem": "half", "head": "bands"}
WIDTHS = SearchSpace(((0, 2, 4), (2, 4, 6)), ("stage", "successive", "stage"), 3, NAMES, **PYRAMID, levels=(0, 1, 1))
SPACES = [
    WIDTHS,
    SearchSpace(((2, 4), (2, 4), (4, 8)), ("stage", "stage"), 2, NAMES[::2], **PYRAMID, levels=(2, 0)),
    SearchSpace((4, 6), ("stage", "multi_scale"), 2, NAMES, **PYRAMID, levels=(1, 0)),
    SearchSpace(4, ("stage", "successive"), 2, NAMES),
    SearchSpace(4, ("stage", "successive", "stage"), 2, NAMES, sources=("first", "first", "second"), merge="concat"),
]


def test_the_description_of_a_network():
    genotype = WIDTHS.genotype(Choices([[1, 2, 1], [1, 0, 1], [1, 1, 1]], (2, 0)))
    assert (genotype.network, genotype.channels) == ("pyramid", (4, 2))
    assert (genotype.norm, genotype.stem, genotype.head) == ("none", "half", "bands")
    assert genotype.cells == (
        CellGenotype("stage", ("inverted_k3",), level=0),
        CellGenotype("successive", ("identity", "plain_k3", "identity"), level=1),
        CellGenotype("stage", ("identity",), level=1),
    )


def test_a_level_without_feature_maps_has_no_cells():
    genotype = WIDTHS.genotype(Choices([[2, 2, 2], [1, 0, 1], [0, 1, 2]], (0, 2)))
    assert genotype.channels == (0, 6)
    assert [(cell.level, cell.operators) for cell in genotype.cells] == [
        (1, ("identity", "plain_k3", "identity")),
        (1, ("plain_k3", "inverted_k3")),
    ]


def test_bare_networks_have_the_largest_widths_unless_others_are_given():
    assert WIDTHS.largest == (4, 6)
    for widths, bare in ((4, 6), WIDTHS.bare()), ((2, 4), WIDTHS.bare((2, 4))), ((0, 6), WIDTHS.bare((0, 6))):
        assert bare.channels == widths
        assert len(bare.cells) == (3 if widths[0] else 2)
        assert {cell.operators for cell in bare.cells} == {("identity",)}


def test_widths_to_choose_from_are_those_of_a_space_with_lists():
    assert [space.width_options for space in SPACES] == [
        ((0, 2, 4), (2, 4, 6)),
        ((2, 4), (2, 4), (4, 8)),
        (),
        (),
        (),
    ]
    assert [space.largest for space in SPACES[1:]] == [(4, 4, 8), (4, 6), 4, 4]


def test_the_description_of_a_refine_network():
    space = SPACES[-1]
    genotype = space.genotype(Choices([[1, 2], [0, 1], [2, 2]]))
    assert (genotype.network, genotype.merge, genotype.inputs) == ("refine", "concat", 3)
    assert genotype.cells == (
        CellGenotype("stage", ("inverted_k3",), "first"),
        CellGenotype("successive", ("plain_k3", "identity"), "first"),
        CellGenotype("stage", ("inverted_k3", "inverted_k3"), "second"),
    )
    assert [cell.source for cell in space.bare().cells] == ["first", "first", "second"]


@given(st.sampled_from(SPACES), st.data())
def test_choices_come_back_from_their_description_up_to_the_places_of_identities(space, data):
    index = st.integers(0, len(space.operators) - 1)
    row = st.lists(index, min_size=space.steps, max_size=space.steps)
    operators = data.draw(st.lists(row, min_size=len(space.cells), max_size=len(space.cells)))
    widths = tuple(data.draw(st.integers(0, len(options) - 1)) for options in space.width_options)
    genotype = space.genotype(Choices(operators, widths))
    channels = genotype.channels if isinstance(genotype.channels, int) else list(genotype.channels)
    found = space.choices({"channels": channels, "operators": [list(cell.operators) for cell in genotype.cells]})
    assert found.widths == widths
    assert space.genotype(found) == genotype
    absent = {level for level, options in enumerate(space.width_options) if options[widths[level]] == 0}
    identity = space.operators.index("identity") if "identity" in space.operators else None
    for (kind, level), before, after in zip(space.places, operators, found.operators, strict=True):
        assert len(after) == space.steps
        if level in absent:
            continue
        blocks = [index for index in before if kind != "stage" or index != identity]
        assert after == blocks + [identity] * (space.steps - len(blocks))


@pytest.mark.parametrize(
    ("channels", "operators"),
    [
        ([4, 6], [["dense_k3_d1"], ["plain_k3"] * 3, ["identity"]]),
        ([4, 8], [["plain_k3"], ["plain_k3"] * 3, ["identity"]]),
        ([4], [["plain_k3"], ["plain_k3"] * 3, ["identity"]]),
        ([4, 6], [["plain_k3"], ["plain_k3"] * 4, ["identity"]]),
        ([4, 6], [["plain_k3"], ["plain_k3"] * 3]),
        ([0, 6], [["plain_k3"], ["plain_k3"] * 3, ["identity"]]),
    ],
)
def test_what_describes_no_network_of_the_space_is_refused(channels, operators):
    with pytest.raises(ValueError):  # noqa: PT011
        WIDTHS.choices({"channels": channels, "operators": operators})
