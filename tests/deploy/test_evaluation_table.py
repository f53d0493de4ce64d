"""The tables of an evaluation: marks, numbers, and files that parse back."""

import csv
import io
import re

import numpy as np
import pytest
from rich.console import Console

from timfuse.deploy.evaluation import Evaluation
from timfuse.deploy.evaluation_table import latex, markdown, metrics_csv, print_evaluation, summary_csv, write_tables
from timfuse.objectives.metrics import FIELD_METRICS, METRICS
from timfuse.runtime.errors import UserError

LOWER = "Qcv"


@pytest.fixture
def scored():
    """Three methods and a trivial one; on the lower-is-better metric the first is best."""
    means = np.array([[1.5, 10.0], [2.5, 300.0], [2.0, 20.0], [9.0, 1.0]])
    values = means[:, None] + np.array([-0.25, 0.25])[:, None]
    return Evaluation(("ours", "U2_net", "c", "average"), ("x", "y"), ("MI", LOWER), values, frozenset({"average"}))


def printed(evaluation, width):
    text = io.StringIO()
    print_evaluation(evaluation, Console(file=text, width=width, force_terminal=True, color_system="standard"))
    return text.getvalue()


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_markdown_marks_best_and_second(scored):
    lines = markdown(scored).splitlines()
    assert lines[2] == f"| method | MI↑ | {LOWER}↓ | rank |"
    assert lines[4] == "| ours | 1.500 | **10.0** | 3.00 |"
    assert lines[5] == r"| U2\_net | **2.500** | 300.0 | 3.00 |"
    assert lines[6] == "| c | <ins>2.000</ins> | <ins>20.0</ins> | 3.00 |"
    assert lines[7] == "| *average* | 9.000 | 1.0 | 1.00 |"


def test_markdown_tables_are_rectangular(scored):
    for table in re.findall(r"(?:^\|.*\n)+", markdown(scored), flags=re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_markdown_holds_intervals_and_ranks(scored):
    text = markdown(scored)
    assert "| 1.250 … 1.750 |" in text
    assert "| ours | 4 | 2 | 3.00 |" in text


def test_latex_is_a_booktabs_table_with_the_marks(scored):
    text = latex(scored)
    assert r"Method & MI$\uparrow$ & " + rf"{LOWER}$\downarrow$ & Rank \\" in text
    assert r"ours & 1.500 & \textbf{10.0} & 3.00 \\" in text
    assert r"U2\_net & \textbf{2.500} & 300.0 & 3.00 \\" in text
    assert r"c & \underline{2.000} & \underline{20.0} & 3.00 \\" in text
    assert text.count(r"\midrule") == 2
    assert text.index(r"c &") < text.rindex(r"\midrule") < text.index("average &")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {row.count(" & ") for row in rows} == {3}
    assert text.count("{") == text.count("}")


def test_csv_files_hold_every_bit(scored):
    rows = list(csv.DictReader(io.StringIO(metrics_csv(scored))))
    assert [(row["method"], row["image"]) for row in rows[:3]] == [("ours", "x"), ("ours", "y"), ("U2_net", "x")]
    values = np.array([[float(row[metric]) for metric in scored.metrics] for row in rows])
    np.testing.assert_array_equal(values.reshape(scored.values.shape), scored.values)
    summary = list(csv.DictReader(io.StringIO(summary_csv(scored))))
    assert [row["trivial"] for row in summary] == ["0", "0", "0", "1"]
    assert [float(row["mean_rank"]) for row in summary] == scored.mean_rank.tolist()
    low, high = scored.interval()
    for index, row in enumerate(summary):
        assert int(row["pairs"]) == 2
        for position, metric in enumerate(scored.metrics):
            numbers = [float(row[f"{metric}{suffix}"]) for suffix in ("", "_low", "_high", "_rank")]
            arrays = (scored.mean, low, high, scored.ranks)
            assert numbers == [array[index, position] for array in arrays]


def test_the_files_are_written(scored, tmp_path):
    files = write_tables(scored, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["metrics.csv", "summary.csv", "table.md", "table.tex"]
    assert files[3].read_text(encoding="utf-8") == latex(scored)


def test_a_folder_that_cannot_be_written(scored, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_tables(scored, tmp_path / "file")


def test_the_terminal_marks_best_and_second(scored):
    text = printed(scored, 100)
    assert "\x1b[1m2.500\x1b[0m" in text
    assert "\x1b[4m2.000\x1b[0m" in text
    assert "\x1b[1m 10.0\x1b[0m" in text or "\x1b[1m10.0\x1b[0m" in text


def test_the_eleven_metrics_fit_on_100_columns():
    means = (
        np.tile([7.0, 45.0, 13.0, 4.9, 3.9, 1.8, 0.9, 0.6, 0.7, 0.5, 15.0], (9, 1)) * np.linspace(1, 1.1, 9)[:, None]
    )
    names = tuple(f"method_number_{index}" for index in range(9))
    evaluation = Evaluation(names, ("x",), tuple(FIELD_METRICS), means[:, None])
    lines = plain(printed(evaluation, 100)).splitlines()
    assert max(map(len, lines[:10])) <= 100
    assert all(metric in lines[0] for metric in FIELD_METRICS)
    assert "…" not in "".join(lines)


def test_a_narrow_terminal_gets_more_tables_but_every_number(scored):
    text = plain(printed(scored, 24))
    assert text.count("method") == 2
    assert all(number in text for number in ("1.500", "2.500", "10.0", "300.0"))


def test_numbers_that_are_not_defined_are_said_to_be():
    values = np.array([[[np.nan, np.inf]], [[1.0, 2.0]]])
    evaluation = Evaluation(("a", "b"), ("x",), ("CC", "PSNR"), values)
    dash = "\N{EN DASH}"
    lines = markdown(evaluation).splitlines()
    assert lines[4:6] == [f"| a | {dash} | **inf** | 1.00 |", "| b | 1.000 | <ins>2.000</ins> | 1.50 |"]
    assert f"| a | {dash} … {dash} | {dash} … {dash} |" in lines
    assert f"| a | {dash} | 1 | 1.00 |" in lines
    assert rf"a & {dash} & \textbf{{inf}} & 1.00 \\" in latex(evaluation)
    assert plain(printed(evaluation, 60)).splitlines()[1].split() == ["a", dash, "inf", "1.00"]
    for text in (markdown(evaluation), printed(evaluation, 60)):
        assert f"; {dash} undefined, left out of means and ranks" in text
    assert metrics_csv(evaluation) == "method,image,CC,PSNR\na,x,,inf\nb,x,1.0,2.0\n"
    assert summary_csv(evaluation).splitlines()[1] == "a,0,1,1.0,,,,,inf,,,1.0"
    one = Evaluation(("a",), ("x",), ("CC",), np.array([[[np.nan]]]))
    assert summary_csv(one).splitlines()[1] == "a,0,1,,,,,"


def test_every_table_says_what_its_numbers_are(scored):
    line = f"MI: sums over both sources; {LOWER}: weighted means over both sources"
    assert line in plain(printed(scored, 40)).splitlines()
    assert line in markdown(scored).splitlines()
    assert f"% {line}" in latex(scored).splitlines()
    meaning = METRICS["MI"].definition
    assert f"- MI, mutual information: {meaning}" in markdown(scored).splitlines()
    everything = Evaluation(("a",), ("x",), tuple(FIELD_METRICS), np.ones((1, 1, 11)))
    line = (
        "EN, SD, SF, AG: of the fused image alone; MI, SCD, VIF: sums over both sources; "
        "Qabf: weighted means over both sources; SSIM, CC, PSNR: means over both sources"
    )
    assert line in markdown(everything).splitlines()
