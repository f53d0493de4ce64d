"""Section of a config that describes the search space, and the presets that it can start from."""

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ..cost import SearchSpace
from ..data.stage_config import WholeNumber
from ..genotypes import parse_operator
from ..genotypes.genotype import MOST_LEVELS, MOST_OPERATORS, PYRAMID_HEADS, SOURCES
from ..operators.width_supernet import WIDENED
from ..runtime.config import Count, Section
from ..runtime.errors import UserError

Width = int | tuple[int, ...]


def _widths(channels: int | tuple[Width, ...]) -> int | tuple[Width, ...]:
    levels = channels if isinstance(channels, tuple) else (channels,)
    options = [width if isinstance(width, tuple) else (width,) for width in levels]
    if not 1 <= len(options) <= MOST_LEVELS or any(width % 2 or width < 0 for widths in options for width in widths):
        raise ValueError(f"must be an even number from 2 on, or a list of 1 to {MOST_LEVELS} of them")
    for level, widths in enumerate(options):
        optional = level == 0 and isinstance(levels[0], tuple) and len(levels) > 1
        if min(widths, default=0) < 2 and not (optional and widths[:1] == (0,) and min(widths[1:], default=0) > 0):
            raise ValueError("must be an even number from 2 on; 0 only as the first to choose from at the finest level")
        if sorted(set(widths)) != list(widths):
            raise ValueError(f"must have numbers in rising order to choose from at a level, not {list(widths)}")
    if any(isinstance(width, tuple) and len(width) == 1 for width in levels):
        raise ValueError("must have at least two numbers to choose from at a level, or one number for every level")
    if len({isinstance(width, tuple) and len(width) for width in levels}) > 1:
        raise ValueError("must have one number for every level, or equally many numbers to choose from for every level")
    return channels


Channels = Annotated[int | tuple[Width, ...], AfterValidator(_widths)]

PRESETS: dict[str, SearchSpace] = {
    "pyramid": SearchSpace(
        channels=((0, 8, 16, 24), (8, 16, 24, 32), (16, 24, 32, 48), (16, 24, 32, 48)),
        cells=("stage",) * 4,
        steps=3,
        operators=(
            "identity",
            "plain_k3",
            "channel_attention_k3",
            "inverted_k3",
            "inverted_k5",
            "residual_k3_d1",
            "dilated_k3_d2",
        ),
        norm="none",
        stem="half",
        head="bands",
        levels=(0, 1, 2, 3),
    ),
    "tim": SearchSpace(
        channels=16,
        cells=("successive", "successive"),
        steps=2,
        operators=(
            "dense_k3_d1",
            "dense_k5_d1",
            "residual_k3_d1",
            "residual_k5_d1",
            "dilated_k3_d2",
            "dilated_k5_d2",
            "separable_k3",
            "channel_attention_k3",
            "spatial_attention_k3",
            "spatial_attention_k5",
        ),
    ),
}
PRESETS["tim-refine"] = replace(
    PRESETS["tim"],
    cells=("successive",) * 4,
    sources=("first", "first", "second", "second"),
    merge="gated",
)
"""The search spaces that a config can start from."""


class SpaceSection(Section):
    """The search space: what a network is made of, and what is left to choose. A key that is null is as in the preset.

    Attributes:
        preset: Kind of networks: "pyramid" for pyramid networks whose widths, blocks and finest level are searched,
            "tim" for networks of one size whose operators are searched, as in TIM, or "tim-refine" for the refine
            networks that are TIM's second stage, behind a trained `first_stage`. Null for "tim"
            where channels is one number, and otherwise for "pyramid".
        channels: Feature maps, even. Of a pyramid network a list for the levels, from the finest, of half the height
            and width, to the coarsest: of each the number, or a list of equally many numbers to choose from, of which
            the first of the finest level may be 0, for networks without it. Otherwise one number.
        cells: Kind of each cell: "stage", "successive", "multi_scale" or "decomposition".
        levels: Level of each cell of a pyramid network, from 0, the finest, on.
        sources: Branch of each cell of a refine network, all "first" before all "second".
        merge: Merge of the branches of a refine network, "gated" or "concat".
        steps: Number of operators in each cell; in a stage the largest number, since `identity` leaves one out.
        operators: Ids of the candidates, such as residual_k3_d1.
        norm: Normalisation after pointwise convolutions: "batch", "group" or "none".
        stem: Resolution of the cells: "full", or "half" for half the height and width; "half" in a pyramid network.
        head: Output of the network: "direct" for the fused image itself, "envelope" for the weights of the brighter
            and the darker source; of a pyramid network "bands", or "sources" to take regions from one source, too.
    """

    preset: Literal["pyramid", "tim", "tim-refine"] | None = None
    channels: Channels | None = None
    cells: (
        Annotated[tuple[Literal["stage", "successive", "multi_scale", "decomposition"], ...], Field(min_length=1)]
        | None
    ) = None
    levels: tuple[WholeNumber, ...] | None = None
    sources: tuple[Literal["first", "second"], ...] | None = None
    merge: Literal["gated", "concat"] | None = None
    steps: Count | None = None
    operators: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    norm: Literal["batch", "group", "none"] | None = None
    stem: Literal["full", "half"] | None = None
    head: Literal["direct", "envelope", "bands", "sources"] | None = None

    @model_validator(mode="after")
    def _operators_exist_once(self) -> Self:
        space = self.search_space
        if len(space.cells) * space.steps > MOST_OPERATORS:
            raise ValueError(
                f"must have at most {MOST_OPERATORS} steps in all cells: {len(space.cells)} x {space.steps}"
            )
        for index, name in enumerate(space.operators):
            parse_operator(name, f"space.operators[{index}]")
            if name in space.operators[:index]:
                raise UserError(f"space.operators[{index}]: {name} is listed twice; remove one")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        space = self.search_space
        channels = space.channels
        pyramid = isinstance(channels, tuple)
        if self.base != "pyramid" and (pyramid or self.levels is not None):
            raise ValueError("must have preset: pyramid for a list of numbers in space.channels, or for space.levels")
        if self.base == "pyramid" and not pyramid:
            raise ValueError("must have a list of numbers in space.channels, one for each level, or preset: tim")
        if isinstance(channels, tuple):
            if len(space.levels) != len(space.cells):
                raise ValueError(
                    f"must have one of space.levels for each of the {len(space.cells)} cells of a pyramid network"
                )
            if max(space.levels) >= len(channels):
                raise ValueError(f"must have space.levels below the number of space.channels: {max(space.levels)}")
        for key, allowed in (("stem", ("half",)), ("head", PYRAMID_HEADS)):
            if (getattr(space, key) in allowed) != pyramid and (pyramid or key == "head"):
                words = " or ".join(allowed)
                raise ValueError(f"must have space.{key} = {words} in a pyramid network{'' if pyramid else ' alone'}")
        if space.width_options:
            self._check_widths(space)
        if self.base == "tim-refine":
            self._check_branches(space)
        elif self.sources is not None or self.merge is not None:
            raise ValueError("must have preset: tim-refine for space.sources or space.merge")
        return self

    def _check_branches(self, space: SearchSpace) -> None:
        """Check that a refine network has two branches, and nothing that it cannot have."""
        if len(space.sources) != len(space.cells):
            raise ValueError(
                f"must have one of space.sources for each of the {len(space.cells)} cells of a refine network"
            )
        if sorted(space.sources) != list(space.sources) or set(space.sources) != set(SOURCES):
            raise ValueError(
                "must have in space.sources all cells of the first branch before those of the second, and at least one"
                f" of each: {', '.join(space.sources)}"
            )
        for key, only in (("stem", "full"), ("head", "direct")):
            if getattr(space, key) != only:
                raise ValueError(f"must have space.{key} = {only} in a refine network")

    def _check_widths(self, space: SearchSpace) -> None:
        """Check that each width of a level is the first part of a larger one."""
        advice = "; or give one number for each level in space.channels"
        if others := sorted(set(space.cells) - {"stage", "successive"}):
            raise ValueError(f"must have stages or successive cells where widths are searched, not {others[0]}{advice}")
        if space.norm != "none":
            raise ValueError(f"must have space.norm = none where widths are searched, not {space.norm}{advice}")
        others = [name for name in space.operators if parse_operator(name).kind not in WIDENED]
        if others:
            raise ValueError(f"must leave out space.operators {others[0]}, which has no narrower part{advice}")
        if space.width_options[0][0] == 0 and not any(space.levels):
            raise ValueError("must have a cell at a coarser level where the finest level may have 0 of space.channels")

    @property
    def base(self) -> str:
        """The name of the preset in use."""
        return self.preset or ("tim" if isinstance(self.channels, int) else "pyramid")

    @property
    def search_space(self) -> SearchSpace:
        """The space as plain values, those of the preset where a key is null."""
        preset = PRESETS[self.base]
        given = {key: value for key, value in self.model_dump(exclude={"preset"}).items() if value is not None}
        channels = given.get("channels")
        if isinstance(channels, tuple):  # a stage for each level
            given = {"cells": ("stage",) * len(channels), "levels": tuple(range(len(channels)))} | given
        return replace(preset, **given)
