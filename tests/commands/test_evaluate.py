"""`timfuse evaluate` and `timfuse compare`."""

from pathlib import Path

from PIL import Image

from timfuse.objectives.metrics import FIELD_METRICS

from .conftest import write_image, write_methods

SOURCES = ["--first", "scenes/ir", "--second", "scenes/vis"]


def test_evaluating_methods(run):
    a, b = write_methods("a", "b")
    code, listed, _ = run("evaluate", *SOURCES, "--fused", a, b, "--output", "scores")
    assert code == 0
    rows = [line.split() for line in listed.splitlines()]
    assert [row[0] for row in rows[1:7]] == ["a", "b", "average", "maximum", "copy_first", "copy_second"]
    assert rows[0][1:] == [*(f"{name}↑" for name in FIELD_METRICS), "rank"]
    assert rows[1][1:] == rows[2][1:] == rows[5][1:]  # all three are the first source
    files = ["metrics.csv", "summary.csv", "table.md", "table.tex"]
    assert [Path(line).name for line in listed.splitlines()[-4:]] == files
    assert Path("scores/metrics.csv").read_text().count("\n") == 1 + 6 * 4
    code, repeated, _ = run("evaluate", *SOURCES, "--fused", a, "--fused", b)
    assert repeated.splitlines() == listed.splitlines()[:-4]
    assert run("evaluate", "--data", "scenes", "--fused", a, b)[1] == repeated
    code, output, _ = run("evaluate", *SOURCES, "--fused", f"net={a}", "--no-trivial", "--metrics", "MI, Qcv")
    assert [line.split()[0] for line in output.splitlines()[:-1]] == ["method", "net"]
    assert output.split()[1:3] == ["MI↑", "Qcv↓"]


def test_evaluating_pairs_of_another_task(run, refused):
    for name in "ab":
        for side in "ab":
            write_image(Path("lytro") / f"{name}-{side}.jpg", (64, 48))
        write_image(Path("method") / f"{name}.png", (64, 48))
    words = ["--data", "lytro", "--fused", "method", "--metrics", "MI", "--no-trivial"]
    assert "lytro holds no infrared-visible pairs" in refused("evaluate", *words)
    code, output, _ = run("evaluate", *words, "--task", "multi-focus")
    assert code == 0
    assert output.splitlines()[-1].startswith("mean over 2 pairs")


def test_evaluating_what_cannot_be_scored(refused):
    a, b = write_methods("a", "b")
    assert "no metric MII; choose from EN, " in refused("evaluate", *SOURCES, "--fused", a, "--metrics", "EN,MII")
    assert "two methods are called a" in refused("evaluate", *SOURCES, "--fused", a, f"a={b}")
    Path("file").touch()
    assert "cannot write file" in refused("evaluate", *SOURCES, "--fused", a, "--output", "file")
    Image.new("L", (9, 8)).save(a / "c.png")
    line = refused("evaluate", *SOURCES, "--fused", a, b)
    assert f"scenes/ir/c.png is 64x48, {a / 'c.png'} is 9x8" in line
    (b / "d.png").unlink()
    line = refused("evaluate", *SOURCES, "--fused", a, b)
    assert f"{b} lacks the fused images of 1 of 4 pairs (d)" in line


def test_comparing_methods(run, refused):
    a, b = write_methods("a", "b")
    code, output, _ = run("compare", "--data", "scenes", "--fused", a, b, "--output", "seen", "--limit", 2)
    assert code == 0
    assert output.split() == ["seen/sheet.png", "seen/page.html"]
    code, output, _ = run(
        "compare", *SOURCES, "--fused", a, "-o", "one.png", "--names", "b,d", "--zoom", "1,2,8,6", "--zoom", "9,9,8,6"
    )
    assert code == 0
    assert output.split() == ["one.png"]
    assert Image.open("one.png").width < Image.open("seen/sheet.png").width
    code, output, _ = run("compare", *SOURCES, "--fused", a, "-o", "p.html", "--limit", 1, "--picture", "one.png")
    assert (code, output) == (0, "p.html\n")
    assert "no pair is called x" in refused("compare", *SOURCES, "--fused", a, "-o", "o", "--names", "a,x")
    assert "exceeds a, which is 64x48" in refused("compare", *SOURCES, "--fused", a, "-o", "o", "--zoom", "60,0,8,6")
    assert "1,2,3 is no region" in refused("compare", *SOURCES, "--fused", a, "-o", "o", "--zoom", "1,2,3")
