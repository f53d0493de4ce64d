"""Glob patterns: the paths that fit one, and what its wildcards stand for in each."""

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

_WILDCARD = re.compile(r"(\*+|\?|\[!?\]?[^]]*\])")


class Match(NamedTuple):
    """A path that fits a pattern.

    Attributes:
        stars: What each wildcard stands for, without the suffix of the file.
    """

    path: Path
    stars: tuple[str, ...] = ()


def find_matches(pattern: Path) -> list[Match]:
    """Find the paths that fit a glob pattern with `*`, `?`, `[...]` and `**`, as the module `glob` does.

    A part of the pattern that is the name of a file or folder stands for this one alone, so that brackets in the name
    of a folder do no harm.

    Returns:
        The paths, sorted in each folder; empty if there are none. Hidden ones need a dot in the pattern.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "lytro-01-A.jpg").touch()
        ...     [match.stars for match in find_matches(Path(folder, "*-?.jpg"))]
        [('lytro-01', 'A')]
    """
    *folders, last = pattern.relative_to(pattern.anchor).parts or (".",)
    matches = [Match(Path(pattern.anchor))]
    for folder in folders:
        matches = [longer for match in matches for longer in _extended(match, folder, len)]
    return [longer for match in matches for longer in _extended(match, last, _stem_length)]


def _extended(match: Match, part: str, length: Callable[[str], int]) -> Iterator[Match]:
    """Yield the paths in the folder of a match that fit the next part of its pattern.

    Args:
        length: Function that counts the characters of a name that wildcards may stand for.
    """
    folder, stars = match
    if os.path.lexists(folder / part):
        yield Match(folder / part, stars)
    elif part == "**":
        for entry in ("", *sorted(glob.glob(part, root_dir=folder, recursive=True))):
            yield Match(folder / entry, (*stars, entry[: length(entry)]))
    elif _WILDCARD.search(part):
        expression = re.compile(_expression(part), re.DOTALL)
        for entry in _entries(folder):
            found = expression.fullmatch(entry)
            if found and (part.startswith(".") or not entry.startswith(".")):
                end = length(entry)
                spans = (found.span(group) for group in range(1, expression.groups + 1))
                own = (entry[first : min(last, end)] for first, last in spans if first <= end)
                yield Match(folder / entry, (*stars, *own))


def _expression(part: str) -> str:
    """Write one part of a pattern as a regular expression with a group for each wildcard."""
    pieces = _WILDCARD.split(part)
    # What `fnmatch` makes of a wildcard ends with \Z or \z, the end of the text.
    pieces[1::2] = [f"({fnmatch.translate(wildcard)[:-2]})" for wildcard in pieces[1::2]]
    pieces[::2] = map(re.escape, pieces[::2])
    return "".join(pieces)


def _entries(folder: Path) -> list[str]:
    """List a folder; empty if it is none or may not be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _stem_length(name: str) -> int:
    return len(os.path.splitext(name)[0])
