"""Which images of two sources belong together: by their names, by wildcards or by numbers."""

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

from .patterns import Match

Found: TypeAlias = dict[str, list[Path]]
"""Files by name, several where several fit."""

_LAST_NUMBER = re.compile("(.*?)([0-9]+)([^0-9]*)", re.DOTALL)


class Sides(NamedTuple):
    """The images of the first and the second source by name."""

    first: Found
    second: Found

    def shared(self) -> bool:
        """Tell whether an image has a partner."""
        return not self.first.keys().isdisjoint(self.second)

    def complete(self) -> bool:
        """Tell whether every image has one partner."""
        return self.first.keys() == self.second.keys() and all(
            len(files) == 1 for side in self for files in side.values()
        )


def find_partners(images: Sequence[Sequence[Match]]) -> tuple[str, Sides]:
    """Group the images of both sources by what pairs them: names, wildcards or numbers; say also which it is."""
    names, wildcards = (
        Sides(*(_grouped(side, key) for side in images))
        for key in (lambda match: match.path.stem, lambda match: "/".join(match.stars))
    )
    ways = {"name": names}
    if all(match.stars for match in chain(*images)):
        ways["wildcards"] = wildcards
    for means, sides in ways.items():
        if sides.complete():
            return means, sides
    ways["number"] = by_number(names)
    for means, sides in ways.items():
        if sides.shared():
            return means, sides
    *others, last = ways
    return f"{', '.join(others)} or {last}", names


def by_number(sides: Sides) -> Sides:
    """Call the images of the second source like their partners, where no name is shared but case or numbers tell.

    Numbers tell where each source is one numbered series: names that differ in nothing but the last number in them.
    """
    for keys in (_caseless, _numbered):
        known, others = (keys(side) for side in sides)
        if not sides.shared() and not known.keys().isdisjoint(others):
            return Sides(sides.first, {known.get(key, name): sides.second[name] for key, name in others.items()})
    return sides


def _caseless(names: Collection[str]) -> dict[Hashable, str]:
    """Return names by their small letters; empty if two are the same."""
    found: dict[Hashable, str] = {name.casefold(): name for name in names}
    return found if len(found) == len(names) else {}


def _numbered(names: Collection[str]) -> dict[Hashable, str]:
    """Return the names of a numbered series by their numbers; empty if they are none."""
    parts = [_LAST_NUMBER.fullmatch(name) for name in names]
    found: dict[Hashable, str] = {int(part[2]): part[0] for part in parts if part}
    series = {(part[1].casefold(), part[3].casefold()) for part in parts if part}
    return found if len(found) == len(names) and len(series) == 1 else {}


def _grouped(images: Iterable[Match], name: Callable[[Match], str]) -> Found:
    """Collect images by a name."""
    found: Found = {}
    for match in images:
        found.setdefault(name(match), []).append(match.path)
    return found
