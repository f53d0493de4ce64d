"""What an architecture is: a genotype, its cells, and what each of their fields may be."""

import re
from dataclasses import dataclass, field

from ..runtime.errors import UserError
from .choices import check_choice
from .operator_names import parse_operator
from .provenance import Provenance

# The two sources of each task that timfuse knows, in words: what `first` and `second` stand for.
TASKS: dict[str, tuple[str, str]] = {
    "infrared-visible": ("infrared", "visible"),
    "mri-ct": ("MRI", "CT"),
    "mri-pet": ("MRI", "PET"),
    "mri-spect": ("MRI", "SPECT"),
    "multi-exposure": ("under-exposed", "over-exposed"),
    "multi-focus": ("near focus", "far focus"),
}
# Each kind of cell, in words.
CELL_KINDS: dict[str, str] = {
    "successive": "successive",
    "multi_scale": "multi-scale",
    "decomposition": "decomposition",
}
SOURCES = ("first", "second")
COLOURS = (*SOURCES, "both")
NETWORKS = ("fusion", "refine", "detfusion")
NORMS = ("batch", "group", "none")
STEMS = ("full", "half")
HEADS = ("direct", "envelope")
MERGES = ("gated", "concat")

_BOTH_COLOURED = ("multi-exposure", "multi-focus")
TASK_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True)
class CellGenotype:
    """One cell of a network; checked as a part of its genotype.

    Args:
        kind: A key of `CELL_KINDS`.
        operators: Ids of the operators, in order, at least one.
        source: "first" or "second", the branch of a refine network; None in a fusion network.
    """

    kind: str
    operators: tuple[str, ...]
    source: str | None = None


@dataclass(frozen=True)
class Genotype:
    """One architecture, as a search finds it and a network is built from it.

    Args:
        name: One line of text.
        task: A key of `TASKS`, or a name of the user's own: up to 40 letters, digits, '-', '_' and '.'.
        network: "fusion" (two sources to one image through cells), "refine" (that image again, with both sources) or
            "detfusion" (two sources to one image, without cells: DetFusion's own).
        channels: C, feature maps between stem and head, even, at least 2; of a detfusion network those of each layer of
            an encoder.
        cells: The cells in order, at least one (in a refine network, at least one per source); none in a detfusion
            network.
        norm: "batch", "group" or "none", the normalisation after pointwise convolutions; "none" in a detfusion network.
        stem: "full", or "half" to work at half the height and width (fusion networks only).
        head: "direct" for a head that paints the fused image, or "envelope" for one that weighs the brighter and the
            darker source at each pixel and adds an offset (not in refine networks).
        merge: "gated" or "concat", how a refine network joins its branches; None in the others.
        sources: What `first` and `second` of the user's own task stand for, in words; None for a key of `TASKS`.
        colour: "first", "second" or "both", which source carries the colour; None for what is usual in the task.
        provenance: Where the genotype comes from: texts, numbers, truth values, lists and mappings of those.

    Raises:
        UserError: If a field is not what it may be; names the field, like `cells[1].operators[0]`.
    """

    name: str
    task: str
    network: str
    channels: int
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
        if type(self.channels) is not int or self.channels < 2 or self.channels % 2:
            raise UserError(f"channels must be an even whole number from 2 on, like 48, not {self.channels!r}")
        check_choice("norm", self.norm, NORMS)
        check_choice("stem", self.stem, STEMS)
        check_choice("head", self.head, HEADS)
        if self.network == "detfusion":
            self._check_detfusion()
        elif not self.cells:
            raise UserError("cells must hold at least one cell, with its kind and operators")
        for index, cell in enumerate(self.cells):
            _check_cell(f"cells[{index}]", cell, self.network)
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
    def architecture(self) -> Provenance:
        """Where the architecture comes from, before any weights were trained."""
        return self.provenance.get("architecture", self.provenance)

    @property
    def source_words(self) -> tuple[str, str]:
        """What `first` and `second` stand for, in words."""
        return self.sources or TASKS[self.task]

    @property
    def colour_source(self) -> str:
        """Which source carries the colour: "first", "second" or "both"."""
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
    """Refuse what a YAML file cannot hold as it is."""
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
