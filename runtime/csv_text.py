"""Tables as CSV text that spreadsheets take as it is meant."""

import csv
import io
from collections.abc import Iterable, Sequence


def csv_text(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table as CSV.

    A text that a spreadsheet would run as a formula, such as a file's name that begins with "=", gets an apostrophe in
    front of it. Numbers stay as they are.

    Example:
        >>> print(csv_text(["image", "MI"], [["=1+1.png", "-0.5"]]), end="")
        image,MI
        '=1+1.png,-0.5
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_harmless(cell) for cell in row] for row in (heading, *rows))
    return text.getvalue()


def _harmless(cell: object) -> object:
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
