"""Random genotypes to test with."""

from hypothesis import strategies as st

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
STEMS = {"fusion": ["full", "half"], "pyramid": ["half"]}  # full in other networks
HEADS = {"refine": ["direct"], "pyramid": ["bands", "sources"]}


@st.composite
def genotypes(draw, max_cells=3, max_operators=3):
    """Draw any valid genotype."""
    network = draw(st.sampled_from(["fusion", "refine", "detfusion", "pyramid"]))
    operators = st.lists(st.sampled_from(ALL_OPERATORS), min_size=1, max_size=max_operators).map(tuple)
    kinds = st.sampled_from(list(CELL_KINDS))
    if network == "detfusion":
        sources = []
    elif network in ("fusion", "pyramid"):
        sources = draw(st.lists(st.none(), min_size=1, max_size=max_cells))
    else:
        extra = st.lists(st.sampled_from(["first", "second"]), max_size=max_cells - 1)
        sources = draw(extra.flatmap(lambda more: st.permutations(["first", "second", *more])))
    channels = st.integers(1, 64).map(lambda half: 2 * half)
    widths = tuple(draw(st.lists(channels, min_size=1, max_size=4))) if network == "pyramid" else draw(channels)
    bare = draw(st.integers(0, len(widths) - 1)) if network == "pyramid" else 0
    widths = (0,) * bare + widths[bare:] if network == "pyramid" else widths
    levels = st.integers(bare, len(widths) - 1) if network == "pyramid" else st.none()
    task, words = draw(KNOWN_TASKS | OWN_TASKS)
    return Genotype(
        name=draw(NAMES),
        task=task,
        sources=words,
        colour=draw(st.sampled_from([None, "first", "second", "both"])),
        network=network,
        channels=widths,
        cells=tuple(CellGenotype(draw(kinds), draw(operators), source, draw(levels)) for source in sources),
        norm="none" if network == "detfusion" else draw(st.sampled_from(["batch", "group", "none"])),
        stem=draw(st.sampled_from(STEMS.get(network, ["full"]))),
        head=draw(st.sampled_from(HEADS.get(network, ["direct", "envelope"]))),
        merge=draw(st.sampled_from(["gated", "concat"])) if network == "refine" else None,
        provenance=draw(st.dictionaries(st.text(max_size=9), PLAIN, max_size=3)),
    )
