"""Tables of an evaluation: for the terminal, as Markdown, as LaTeX and as CSV."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..objectives.metrics import METRICS
from ..runtime.csv_text import csv_text
from ..runtime.files import write_atomically
from ..runtime.terminal import output_console, print_table
from .evaluation import Evaluation

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_UNDEFINED = "\N{EN DASH}"
_STYLES = ("", "bold", "underline")  # by place
_MARKDOWN = ("{}", "**{}**", "<ins>{}</ins>")
_LATEX = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")
_LATEX_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def print_evaluation(evaluation: Evaluation, console: "Console | None" = None) -> None:
    """Print means, with the best and second best marked, and mean ranks, in as many tables as the width requires.

    Example:
        >>> values = np.array([[[6.0], [7.0]], [[5.0], [6.0]]])
        >>> print_evaluation(Evaluation(("ours", "theirs"), ("00001", "00002"), ("EN",), values))
        method   EN↑ rank
        ours   6.500 1.00
        theirs 5.500 2.00
        EN: of the fused image alone
        mean over 2 pairs; bold best, underlined second best; rank: mean rank over EN, 1 is best
    """
    console = console or output_console()
    texts = mean_texts(evaluation)
    space = console.width - max(map(len, (*evaluation.methods, "method"))) - len(" rank") - 1
    blocks: list[list[int]] = [[]]
    for column, heading in enumerate(headings(evaluation)):
        width = max(len(heading), *(len(row[column]) for row in texts)) + 1
        if blocks[-1] and width > space - sum(len(texts[0][other]) + 1 for other in blocks[-1]):
            blocks.append([])
        blocks[-1].append(column)
    for columns in blocks:
        numbers = [*(headings(evaluation)[column] for column in columns), "rank"]
        print_table(["method"], numbers, _terminal_rows(evaluation, columns), console)
    for line in (meanings(evaluation), f"mean over {_pairs(evaluation)}; {legend(evaluation)}"):
        console.print(line, style="dim", highlight=False, soft_wrap=True)


def write_tables(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write an evaluation as tables for people and programs.

    `metrics.csv` has a row for each method and image; `summary.csv` has a row for each method, with mean, interval and
    rank of every metric; `table.md` has means, intervals and ranks; `table.tex` has the means.

    Raises:
        UserError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> evaluation = Evaluation(("ours",), ("00001",), ("EN",), np.array([[[6.0]]]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_tables(evaluation, Path(folder))
        ...     print(Path(folder, "metrics.csv").read_text(), end="")
        method,image,EN
        ours,00001,6.0
    """
    contents = {
        "metrics.csv": metrics_csv(evaluation),
        "summary.csv": summary_csv(evaluation),
        "table.md": markdown(evaluation),
        "table.tex": latex(evaluation),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def metrics_csv(evaluation: Evaluation) -> str:
    """Write a row for each method and image with every metric; a cell is empty where the metric is undefined."""
    rows = (
        [method, image, *map(_cell, values)]
        for method, images in zip(evaluation.methods, evaluation.values, strict=True)
        for image, values in zip(evaluation.images, images, strict=True)
    )
    return csv_text(["method", "image", *evaluation.metrics], rows)


def summary_csv(evaluation: Evaluation) -> str:
    """Write a row for each method: pairs, mean rank, and mean, interval and rank of every metric.

    A cell is empty where the number is undefined.
    """
    heading = ["method", "trivial", "pairs", "mean_rank"]
    for metric in evaluation.metrics:
        heading += [metric, f"{metric}_low", f"{metric}_high", f"{metric}_rank"]
    # Mean, low, high and rank beside each other: (methods, metrics, 4).
    columns = np.stack([evaluation.mean, *evaluation.interval(), evaluation.ranks], axis=-1)
    rows = (
        [method, int(method in evaluation.trivial), len(evaluation.images), *map(_cell, [mean_rank, *values.ravel()])]
        for method, mean_rank, values in zip(evaluation.methods, evaluation.mean_rank, columns, strict=True)
    )
    return csv_text(heading, rows)


def markdown(evaluation: Evaluation) -> str:
    """Write tables of the means, their intervals and ranks, and what the metrics are.

    The best means are bold, the second best underlined.
    """
    digits = decimals(evaluation)
    low, high = evaluation.interval()
    intervals = [
        [f"{_number(a, n)} … {_number(b, n)}" for a, b, n in zip(lows, highs, digits, strict=True)]
        for lows, highs in zip(low, high, strict=True)
    ]
    ranks = [[_UNDEFINED if math.isnan(rank) else f"{rank:g}" for rank in row] for row in evaluation.ranks]
    mean_ranks = rank_texts(evaluation)
    names = [f"*{_escape(name)}*" if name in evaluation.trivial else _escape(name) for name in evaluation.methods]
    metrics = headings(evaluation)
    return "\n".join(
        [
            f"Mean over {_pairs(evaluation)}\n",
            *_markdown_table(["method", *metrics, "rank"], names, _marked(evaluation, _MARKDOWN), mean_ranks),
            f"\n{meanings(evaluation)}\n\n{legend(evaluation)}\n",
            "95 % interval of the mean (bootstrap over the images)\n",
            *_markdown_table(["method", *metrics], names, intervals),
            "\nRank of the mean\n",
            *_markdown_table(["method", *metrics, "mean"], names, ranks, mean_ranks),
            "\nThe metrics\n",
            *(f"- {metric}, {definition(metric)}" for metric in evaluation.metrics),
            "",
        ]
    )


def latex(evaluation: Evaluation) -> str:
    """Write the means as a table for the LaTeX package booktabs, the best in bold, the second best underlined."""
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    metrics = [heading[:-1].translate(_LATEX_ESCAPES) + arrows[heading[-1]] for heading in headings(evaluation)]
    names = [name.translate(_LATEX_ESCAPES) for name in evaluation.methods]
    rows = [
        " & ".join([name, *cells, rank]) + r" \\"
        for name, cells, rank in zip(names, _marked(evaluation, _LATEX), rank_texts(evaluation), strict=True)
    ]
    first_trivial = sum(name not in evaluation.trivial for name in evaluation.methods)
    if 0 < first_trivial < len(rows):
        rows.insert(first_trivial, r"\midrule")
    return "\n".join(
        [
            f"% Mean over {_pairs(evaluation)}; needs \\usepackage{{booktabs}}.",
            f"% {meanings(evaluation)}",
            rf"\begin{{tabular}}{{l{'r' * (len(metrics) + 1)}}}",
            r"\toprule",
            " & ".join(["Method", *metrics, "Rank"]) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def headings(evaluation: Evaluation) -> list[str]:
    """Return the names of the metrics, each with an arrow in the better direction."""
    return [f"{metric}{'↑' if METRICS[metric].higher_is_better else '↓'}" for metric in evaluation.metrics]


def decimals(evaluation: Evaluation) -> list[int]:
    """Choose at most four decimals for each metric, so that its largest mean has four significant digits."""
    largest = np.where(np.isfinite(evaluation.mean), np.abs(evaluation.mean), 0).max(axis=0)
    return [max(0, min(4, 3 - math.floor(math.log10(value)))) if value > 0 else 4 for value in largest]


def mean_texts(evaluation: Evaluation) -> list[list[str]]:
    """Format the means, in a list for each method."""
    digits = decimals(evaluation)
    return [[_number(value, n) for value, n in zip(row, digits, strict=True)] for row in evaluation.mean]


def rank_texts(evaluation: Evaluation) -> list[str]:
    """Format the mean ranks."""
    return [_number(rank, 2) for rank in evaluation.mean_rank]


def definition(metric: str) -> str:
    """Say in one line what a metric is."""
    return f"{METRICS[metric].full_name}: {METRICS[metric].definition}"


def meanings(evaluation: Evaluation) -> str:
    """Say in one line how the numbers of a table take in the sources."""
    groups: dict[str, list[str]] = {}
    for metric in evaluation.metrics:
        groups.setdefault(METRICS[metric].sources, []).append(metric)
    text = "; ".join(f"{', '.join(names)}: {sources}" for sources, names in groups.items())
    return text if evaluation.sources == 2 else text.replace("both", "all")


def legend(evaluation: Evaluation) -> str:
    """Explain the marks and ranks of a table in one line."""
    marks = "bold best, underlined second best; " if evaluation.places.any() else ""
    names = [name for name in evaluation.methods if name in evaluation.trivial]
    trivial = f"; trivial: {', '.join(names)}, ranked but not marked" if names else ""
    left_out = f"; {_UNDEFINED} undefined, left out of means and ranks" if np.isnan(evaluation.values).any() else ""
    ranking = ", ".join(map(_counted, evaluation.ranking))
    return f"{marks}rank: mean rank over {ranking}, 1 is best{trivial}{left_out}"


def _counted(metric: str) -> str:
    """Name a metric with what counts as equal in ranks."""
    floor = METRICS[metric].floor
    return metric if math.isinf(floor) else f"{metric} (up to {floor:g} as good as none)"


def _terminal_rows(evaluation: Evaluation, columns: Sequence[int]) -> Iterator[list["Text"]]:
    from rich.text import Text

    texts, places, ranks = mean_texts(evaluation), evaluation.places, rank_texts(evaluation)
    for index, name in enumerate(evaluation.methods):
        usual = "dim" if name in evaluation.trivial else ""
        cells = [Text(texts[index][column], style=_STYLES[places[index, column]] or usual) for column in columns]
        yield [Text(name, style=usual), *cells, Text(ranks[index], style=usual)]


def _marked(evaluation: Evaluation, forms: Sequence[str]) -> list[list[str]]:
    return [
        [forms[place].format(text) for text, place in zip(row, places, strict=True)]
        for row, places in zip(mean_texts(evaluation), evaluation.places, strict=True)
    ]


def _markdown_table(
    heading: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[str]], last: Sequence[str] | None = None
) -> list[str]:
    ends: Sequence[Sequence[str]] = [[]] * len(names) if last is None else [[end] for end in last]
    lines = [[name, *row, *end] for name, row, end in zip(names, rows, ends, strict=True)]
    return [f"| {' | '.join(line)} |" for line in (heading, [":--", *["--:"] * (len(heading) - 1)], *lines)]


def _escape(name: str) -> str:
    return "".join(f"\\{character}" if character in r"\`*_[]<>|~" else character for character in name)


def _number(value: float, digits: int) -> str:
    return _UNDEFINED if math.isnan(value) else f"{value:.{digits}f}"


def _cell(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _pairs(evaluation: Evaluation) -> str:
    count = len(evaluation.images)
    return f"{count} {'pair' if evaluation.sources == 2 else 'stack'}{'s' * (count != 1)}"
