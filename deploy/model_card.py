"""The card of a network, the README.md beside it: how it was made, and its scores."""

import re
from statistics import fmean

_PART = "not used for the choice"  # marks rows about some of the pairs of the row above


def read_scores(card: str) -> dict[str, float]:
    r"""Read the scores from the table that follows the heading "Metrics" of a card.

    Returns:
        The mean of each metric over the data sets, which weigh the same; nothing if there is no such table.

    Example:
        >>> read_scores("## Metrics\n\n| set | VIF |\n|---|---|\n| TNO (5) | 0.5 |\n| MSRS (15) | 0.75 |\n")
        {'VIF': 0.625}
    """
    found = re.search(r"^## Metrics\n(?:[^|#\n].*\n|\n)*((?:\|.*\|\n)+)", card, re.MULTILINE)
    if found is None:
        return {}
    (_, *names), _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in found[1].splitlines())
    columns = zip(names, *(cells for place, *cells in rows if _PART not in place), strict=True)
    return {name: fmean(map(float, cells)) for name, *cells in columns if cells}
