"""The genotype of an architecture, its cells, and the values that their fields may have."""

import re
from dataclasses import dataclass, field

from ..runtime.errors import UserError
from .choices import check_choice
from .operator_names import parse_operator
from .provenance import Provenance

# The names of the first and the second source of each task.
TASKS: dict[str, tuple[str, str]] = {
    "infrared-visible": ("infrared", "visible"),
    "mri-ct": ("MRI", "CT"),
    "mri-pet": ("MRI", "PET"),
    "mri-spect": ("MRI", "SPECT"),
    "multi-exposure": ("under-exposed", "over-exposed"),
    "multi-focus": ("near focus", "far focus"),
}
# The kinds of cell, in words.
CELL_KINDS: dict[str, str] = {
    "successive": "successive",
    "multi_scale": "multi-scale",
    "decomposition": "decomposition",
    "stage": "stage",
}
SOURCES = ("first", "second")
COLOURS = (*SOURCES, "both")
NETWORKS = ("fusion", "refine", "detfusion", "pyramid")
NORMS = ("batch", "group", "none")
STEMS = ("full", "half")
HEADS = ("direct", "envelope", "bands", "sources")
PYRAMID_HEADS = HEADS[2:]
MERGES = ("gated", "concat")

MOST_OPERATORS = 1000
"""Largest number of operators in all cells; those that people search and draw have a tenth of it or less."""

MOST_LEVELS = 6
"""Largest number of levels of a pyramid network; the coarsest has 1/64 of the height and width."""

_BOTH_COLOURED = ("multi-exposure", "multi-focus")
TASK_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True)
class CellGenotype:
    """A cell of a network. The genotype checks it.

    Args:
        kind: Kind of the cell, a key of `CELL_KINDS`.
        operators: Ids of the operators, in order, at least one.
        source: Branch of a refine network, "first" or "second"; None in other networks.
        level: Level of a pyramid network, from 0, the finest, on; None in other networks.

    Example:
        >>> CellGenotype("successive", ("residual_k3_d1", "dilated_k3_d2")).kind
        'successive'
    """

    kind: str
    operators: tuple[str, ...]
    source: str | None = None
    level: int | None = None


@dataclass(frozen=True)
class Genotype:
    """An architecture, which a search finds and from which a network is built.

    Args:
        name: Name of the network, one line of text.
        task: Fusion task, a key of `TASKS` or a new name of up to 40 letters, digits, '-', '_' and '.'.
        network: With "fusion" it fuses two sources through cells, with "pyramid" through cells at several sizes, with
            "refine" it fuses the sources and their fused image again, and with "detfusion" it is the network of
            DetFusion, without cells.
        channels: Number of feature maps between stem and head, even, at least 2; in a detfusion network, of each layer
            of an encoder; in a pyramid network, of each level, a tuple of at most `MOST_LEVELS` numbers, of which the
            first may be 0.
        cells: The cells in order, at least one, with at most `MOST_OPERATORS` operators in all, and in a refine network
            at least one for each source; none in a detfusion network.
        norm: Normalisation after pointwise convolutions, "batch", "group" or "none"; "none" in a detfusion network.
        stem: Resolution of the finest features, "full", or "half" for half the height and width; "half" in a pyramid
            network, "full" in refine and detfusion networks.
        head: With "direct" it computes the fused image. With "envelope" it weighs the brighter and the darker source at
            each pixel and adds an offset; not in refine networks. With "bands" it does so in each frequency band, and
            with "sources" it can also take a region of a band from one source; one of these in pyramid networks, and
            in no others.
        merge: Merge of the branches of a refine network, "gated" or "concat"; None in other networks.
        sources: Names of the first and the second source of a new task; None for a key of `TASKS`.
        colour: Source that has the colour, "first", "second" or "both"; None for the usual one of the task.
        provenance: Origin of the genotype, in texts, numbers, truth values, lists and mappings.

    Raises:
        UserError: If a field has another value; names the field, like `cells[1].operators[0]`.

    Example:
        >>> cells = (CellGenotype("successive", ("residual_k3_d1",)),)
        >>> Genotype("small", "multi-focus", "fusion", 8, cells).colour_source
        'both'
    """

    name: str
    task: str
    network: str
    channels: int | tuple[int, ...]
    cells: tuple[CellGenotype, ...]
    norm: str = "batch"
    stem: str = "full"
    head: str = "direct"
    merge: str | None = None
    sources: tuple[str, str] | None = None
    colour: str | None = None
    provenance: Provenance = field(default_factory=Provenance, hash=False)

    def __post_init__(self) -> None:
        if not _is_line(self.name):
            raise UserError(f"name must be one line of text, not {self.name!r}; put it in quotes if it is a text")
        self._check_task()
        check_choice("network", self.network, NETWORKS)
        self._check_channels()
        check_choice("norm", self.norm, NORMS)
        check_choice("stem", self.stem, STEMS)
        check_choice("head", self.head, HEADS)
        if self.network == "detfusion":
            self._check_detfusion()
        elif not self.cells:
            raise UserError("cells must hold at least one cell, with its kind and operators")
        if (self.head in PYRAMID_HEADS) != (self.network == "pyramid"):
            heads = "bands or sources" if self.network == "pyramid" else "direct or envelope"
            raise UserError(f"head must be {heads} in a {self.network} network, not {self.head!r}")
        if self.network == "pyramid" and self.stem != "half":
            raise UserError(f"stem must be half in a pyramid network, not {self.stem!r}")
        if (count := sum(len(cell.operators) for cell in self.cells)) > MOST_OPERATORS:
            raise UserError(f"cells must hold at most {MOST_OPERATORS} operators, not {count}")
        for index, cell in enumerate(self.cells):
            _check_cell(f"cells[{index}]", cell, self.network)
            self._check_level(f"cells[{index}].level", cell.level)
        if self.network == "refine":
            self._check_refine()
        elif self.merge is not None:
            raise UserError(
                f"merge must be left out of a {self.network} network, not {self.merge!r}; it joins refine branches"
            )
        if not isinstance(self.provenance, dict):
            raise UserError(f"provenance must be a mapping, like 'seed: 0', not {self.provenance!r}")
        _check_plain("provenance", self.provenance)

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of feature maps of each level; one number in a network that is no pyramid."""
        return self.channels if isinstance(self.channels, tuple) else (self.channels,)

    @property
    def inputs(self) -> int:
        """The number of images that the network takes: both sources, and in a refine network their fused image."""
        return 3 if self.network == "refine" else 2

    @property
    def architecture(self) -> Provenance:
        """The origin of the architecture, before its weights were trained."""
        return self.provenance.get("architecture", self.provenance)

    @property
    def source_words(self) -> tuple[str, str]:
        """The names of the first and the second source."""
        return self.sources or TASKS[self.task]

    @property
    def colour_source(self) -> str:
        """The source that has the colour: "first", "second" or "both"."""
        return self.colour or ("both" if self.task in _BOTH_COLOURED else "second")

    def _check_task(self) -> None:
        if self.sources is None:
            check_choice("task", self.task, TASKS)
        else:
            if not isinstance(self.task, str) or not TASK_NAME.fullmatch(self.task):
                raise UserError(
                    "task must be up to 40 letters, digits, '-', '_' and '.', the first a letter or digit, "
                    f"not {self.task!r}"
                )
            if self.task in TASKS:
                raise UserError(f"sources must be left out for {self.task}, which has its own; or name a new task")
            if not isinstance(self.sources, tuple) or len(self.sources) != 2 or not all(map(_is_line, self.sources)):
                raise UserError(f"sources must be two texts of one line, like [xray, neutron], not {self.sources!r}")
        if self.colour is not None:
            check_choice("colour", self.colour, COLOURS)

    def _check_channels(self) -> None:
        if self.network == "pyramid":
            if not isinstance(self.channels, tuple) or not 1 <= len(self.channels) <= MOST_LEVELS:
                raise UserError(
                    f"channels must be a list of 1 to {MOST_LEVELS} numbers in a pyramid network, like [24, 32], "
                    f"not {self.channels!r}"
                )
        elif isinstance(self.channels, tuple):
            raise UserError(f"channels must be one number in a {self.network} network, not {self.channels!r}")
        bare = self.network == "pyramid"  # whether the levels so far have no features, as the finest ones may
        for channels in self.widths:
            bare = bare and channels == 0
            if type(channels) is not int or (channels < 2 and not bare) or channels % 2:
                raise UserError(f"channels must be an even whole number from 2 on, like 48, not {channels!r}")
        if bare:
            raise UserError("channels must be above 0 for the coarsest level at least, like [0, 24, 32]")

    def _check_level(self, key: str, level: int | None) -> None:
        if not isinstance(self.channels, tuple):
            if level is not None:
                raise UserError(f"{key} must be left out of a {self.network} network, not {level!r}")
        elif type(level) is not int or not 0 <= level < len(self.channels):
            raise UserError(f"{key} must be a whole number from 0 to {len(self.channels) - 1}, not {level!r}")
        elif self.channels[level] == 0:
            raise UserError(f"{key} must be that of a level with channels, not {level}")

    def _check_refine(self) -> None:
        check_choice("merge", self.merge, MERGES)
        if self.stem != "full":
            raise UserError(f"stem must be full in a refine network, not {self.stem!r}")
        if self.head != "direct":
            raise UserError(f"head must be direct in a refine network, not {self.head!r}")
        for source in SOURCES:
            if not any(cell.source == source for cell in self.cells):
                raise UserError(f"cells must hold at least one cell with source: {source} in a refine network")

    def _check_detfusion(self) -> None:
        if self.cells:
            raise UserError("cells must be an empty list in a detfusion network, which has none")
        for name, value in (("norm", "none"), ("stem", "full")):
            if getattr(self, name) != value:
                raise UserError(f"{name} must be {value} in a detfusion network, not {getattr(self, name)!r}")


def in_words(genotype: Genotype) -> str:
    """Write the operators of a network, cell by cell, in a pyramid network after its widths.

    Example:
        >>> cells = (CellGenotype("stage", ("plain_k3", "inverted_k3"), level=1),)
        >>> in_words(Genotype("small", "mri-ct", "pyramid", (0, 8), cells, "none", "half", "bands"))
        '0-8: plain_k3, inverted_k3'
    """
    cells = " | ".join(", ".join(cell.operators) for cell in genotype.cells)
    widths = genotype.channels
    return cells if isinstance(widths, int) else f"{'-'.join(map(str, widths))}: {cells}"


def _is_line(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _check_cell(key: str, cell: CellGenotype, network: str) -> None:
    check_choice(f"{key}.kind", cell.kind, CELL_KINDS)
    if not cell.operators:
        raise UserError(f"{key}.operators must hold at least one operator, like residual_k3_d1")
    for index, operator in enumerate(cell.operators):
        parse_operator(operator, f"{key}.operators[{index}]")
    if network == "refine":
        check_choice(f"{key}.source", cell.source, SOURCES)
    elif cell.source is not None:
        raise UserError(f"{key}.source must be left out of a fusion network, not {cell.source!r}; it names a branch")


def _check_plain(key: str, value: object) -> None:
    """Refuse values that a YAML file cannot hold."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise UserError(f"{key} must have texts as keys, not {name!r}; put it in quotes")
            _check_plain(f"{key}.{name}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain(f"{key}[{index}]", item)
    elif value is not None and type(value) not in (str, bool, int, float):
        raise UserError(f"{key} must be a text, number, truth value, list or mapping, not {value!r}")
