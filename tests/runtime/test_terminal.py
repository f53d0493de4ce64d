import io

from rich.console import Console
from rich.text import Text

from timfuse.runtime.terminal import leads, print_table

LONG = "a text that is longer than eighty columns " * 3


def test_the_process_of_rank_0_reports(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert leads()
    monkeypatch.setenv("RANK", "0")
    assert leads()
    monkeypatch.setenv("RANK", "1")
    assert not leads()


def test_in_a_pipe_each_row_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    print_table(["name", "what"], ["ms", "parameters"], [["[a]", LONG, "1.5", "7"], ["b", "", "22.25", "1,234"]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["name", "what", "ms", "parameters"]
    assert lines[1].startswith(f"[a]  {LONG}")
    assert lines[1].rstrip().endswith("  1.5          7")
    assert lines[2].rstrip().endswith("22.25      1,234")


def test_on_a_terminal_long_texts_are_folded_and_numbers_are_not():
    text = io.StringIO()
    console = Console(file=text, width=60, force_terminal=True, color_system="standard")
    print_table(["what"], ["ms"], [[LONG, Text("1,234.5", style="bold")]], console)
    lines = text.getvalue().splitlines()
    assert len(lines) > 3
    assert "\x1b[1m1,234.5\x1b[0m" in lines[1]
    assert " ".join(line.replace("\x1b[1m1,234.5\x1b[0m", "").strip() for line in lines[1:]).split() == LONG.split()
