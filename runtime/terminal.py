"""Output on the terminal: tables, and which process writes."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def leads() -> bool:
    """Tell whether this process reports: it has rank 0, or is the only one."""
    return os.environ.get("RANK", "0") == "0"


def output_console() -> "Console":
    """Return standard output as a console; in a pipe or a file its lines are as long as they need to be."""
    from rich.console import Console  # here and below, because the help has to be quick

    return Console(width=None if sys.stdout.isatty() else 10_000)


def print_table(
    titles: Sequence[str],
    numbers: Sequence[str],
    rows: Iterable[Sequence["str | Text"]],
    console: "Console | None" = None,
) -> None:
    """Print a table: columns of text, and to the right of them columns of numbers.

    A text that is too long for the terminal is folded; in a pipe or a file each row is one line.

    Args:
        titles: Headings of the columns of text.
        numbers: Headings of the columns of numbers, which are aligned to the right.
        rows: Cells of each row, one for each heading; a `Text` has its own style.

    Example:
        >>> print_table(["network"], ["ms"], [["ivif", "80.1"], ["ivif-fast", "34.5"]])
        network     ms
        ivif      80.1
        ivif-fast 34.5
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in titles:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in row))
    (console or output_console()).print(table)
