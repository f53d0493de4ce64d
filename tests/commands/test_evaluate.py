"""`timfuse evaluate` and `timfuse compare`."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timfuse.objectives.metrics import METRICS, shown_metrics

from .conftest import write_image, write_methods

SOURCES = ["--first", "scenes/ir", "--second", "scenes/vis"]


def test_evaluating_methods(run):
    a, b = write_methods("a", "b")
    code, listed, _ = run("evaluate", *SOURCES, "--fused", a, b, "--output", "scores")
    assert code == 0
    rows = [line.split() for line in listed.splitlines()]
    assert [row[0] for row in rows[1:7]] == ["a", "b", "average", "maximum", "copy_first", "copy_second"]
    shown = [f"{name}{'↑' if METRICS[name].higher_is_better else '↓'}" for name in shown_metrics("infrared-visible")]
    assert [name for row in rows if row[0] == "method" for name in row[1:-1]] == shown
    assert "mean rank over VIF, Qabf, SCD, SSIM, MEF-SSIM, smear (up to 0.02 as good as none), 1 is best" in listed
    assert rows[1][1:] == rows[2][1:] == rows[5][1:]  # all three are the first source
    files = ["metrics.csv", "summary.csv", "table.md", "table.tex"]
    assert [Path(line).name for line in listed.splitlines()[-4:]] == files
    assert Path("scores/metrics.csv").read_text().count("\n") == 1 + 6 * 4
    code, repeated, _ = run("evaluate", *SOURCES, "--fused", a, "--fused", b)
    assert repeated.splitlines() == listed.splitlines()[:-4]
    assert run("evaluate", "--data", "scenes", "--fused", a, b)[1] == repeated
    code, output, _ = run("evaluate", *SOURCES, "--fused", f"net={a}", "--no-trivial", "--metrics", "MI, Qcv")
    assert [line.split()[0] for line in output.splitlines()[:-2]] == ["method", "net"]
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


def test_the_task_names_the_ruler(run, refused):
    (a,) = write_methods("a")
    _, output, _ = run("evaluate", *SOURCES, "--fused", a, "--task", "multi-exposure")
    assert "mean rank over MEF-SSIM, Qabf, VIF, SCD, smear (up to 0.02 as good as none), 1 is best" in output
    assert "--task must be one of infrared-visible, " in refused("evaluate", *SOURCES, "--fused", a, "--task", "focus")
    words = ["--data", "scenes", "--sources", "ir", "vis", "--task", "mine", "--fused", a]
    assert "mean rank over VIF, Qabf, SCD, SSIM, MEF-SSIM, smear" in run("evaluate", *words)[1]
    assert run("compare", *SOURCES, "--fused", a, "--task", "multi-focus", "-o", "page.html")[0] == 0
    assert "mean rank over Qabf, VIF, MEF-SSIM, SSIM, 1 is best" in Path("page.html").read_text(encoding="utf-8")


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


def test_metrics_named_twice_are_one(run):
    (a,) = write_methods("a")
    code, output, _ = run("evaluate", *SOURCES, "--fused", a, "--metrics", "EN,en, EN", "--no-trivial")
    assert code == 0
    assert output.splitlines()[0].split() == ["method", "EN↑", "rank"]


def test_files_whose_names_are_no_text(run):
    """A name of bytes that are no UTF-8, as old archives have."""
    name = os.fsdecode(b"\xff\xfe.png")
    for folder in ("ir", "vis", "m"):
        write_image(Path("scenes", folder, name), (64, 48), seed=len(folder))
    code, output, _ = run("evaluate", *SOURCES, "--fused", "scenes/m", "-o", "scores", "--metrics", "EN")
    assert (code, output.splitlines()[-4:][0]) == (0, "scores/metrics.csv")
    assert Path("scores/metrics.csv").read_text(encoding="utf-8").splitlines()[1].startswith("m,\\udcff\\udcfe,")
    code, output, _ = run("compare", *SOURCES, "--fused", "M&<b>'\"=scenes/m", "--limit", 60, "-o", "seen")
    assert (code, output.split()) == (0, ["seen/sheet.png", "seen/page.html"])


def write_dark(folder, value):
    """Make the pictures of a method as dark as images that were saved as 0 to 1."""
    for file in folder.iterdir():
        pixels = np.asarray(Image.open(file))
        Image.fromarray((pixels > 127).astype(pixels.dtype) * np.uint8(value)).save(file)


def test_fused_images_saved_as_0_to_1_are_pointed_out(run):
    a, b, c = write_methods("a", "b", "c")
    write_dark(b, 1)
    write_dark(c, 0)  # black images are fused images too
    code, output, errors = run("evaluate", *SOURCES, "--fused", a, b, c, "--metrics", "EN,CC", "--no-trivial")
    assert code == 0
    warnings = [line for line in errors.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: {b}/a.png uses 1/255 of the range; if it was saved as 0 to 1, multiply by 255"]
    assert output.splitlines()[3].split() == ["c", "0.000", "\N{EN DASH}", "3.00"]


# Of the fused images that people have: how many of the pairs they are for, and means of some metrics.
FUSED = {
    "fused_01": (8, {"EN": 0.609, "CC": 0.284}),
    "fused_16": (3, {"EN": 7.194, "CC": 0.446}),
    "fused_black": (8, {"EN": 0.0, "CC": float("nan"), "SD": 0.0, "VIF": 0.0}),
    "fused_grey": (8, {"EN": 7.102, "CC": 0.4075, "SCD": 1.639}),
    "fused_jpg": (8, {"EN": 7.109, "CC": 0.4073, "SCD": 1.638}),
    "fused_suffix": (3, {"EN": 7.194, "CC": 0.4462, "SSIM": 0.6666}),
}


@pytest.mark.parametrize("case", FUSED)
def test_fused_images_that_people_have(run, shared, case):
    count, expected = FUSED[case]
    files = shared / "cases" / "files"
    sources = [f"{files}/base/{folder}/00[1-{count}].jpg" for folder in ("ir", "vis")]
    words = ["--first", sources[0], "--second", sources[1], "--fused", files / case, "--no-trivial", "-o", "scores"]
    code, _, errors = run("evaluate", *words)
    assert code == 0
    assert ("uses 1/255 of the range" in errors) == (case == "fused_01")
    names, row = (line.split(",") for line in Path("scores/summary.csv").read_text().splitlines()[:2])
    values = {name: float(text or "nan") for name, text in zip(names[4:], row[4:], strict=True)}
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=6e-4, nan_ok=True), name


def test_fused_images_of_another_size(refused, shared):
    files = shared / "cases" / "files"
    sources = [f"{files}/base/{folder}/00[1-3].jpg" for folder in ("ir", "vis")]
    line = refused("evaluate", "--first", sources[0], "--second", sources[1], "--fused", files / "fused_cropped")
    assert line == (
        f"the images of 001 have two sizes: {files}/base/ir/001.jpg is 200x160, {files}/fused_cropped/001.png is "
        "192x160; bring them to one size"
    )


def test_constant_sources(run, shared):
    folder = shared / "cases" / "files" / "constant_src"
    words = ["--first", folder / "ir", "--second", folder / "vis", "--fused", folder / "f", "--no-trivial"]
    code, output, _ = run("evaluate", *words)
    assert code == 0
    heading, row = (line.split() for line in output.splitlines()[:2])
    assert [name[:-1] for name, text in zip(heading, row, strict=True) if text == "\N{EN DASH}"] == [
        "VIF",
        "Qabf",
        "SCD",
        "CC",
    ]


def test_evaluating_stacks(run, refused):
    write_methods("a")
    shutil.copytree("scenes/vis", "third")
    for file in Path("third").iterdir():
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)
    sources = ["--task", "multi-exposure", "--sources", "scenes/ir", "scenes/vis", "third", "--fused", "scenes/a"]
    assert "say by --task what the stacks are" in refused("evaluate", *sources[2:])
    code, output, _ = run("evaluate", *sources)
    assert code == 0
    shown = ["MEF-SSIM↑", "Qabf↑", "smear↓", "EN↑", "SD↑", "SF↑", "AG↑"]
    assert output.splitlines()[0].split() == ["method", *shown, "rank"]
    trivial = ["average", "maximum", "copy_first", "copy_second", "copy_3"]
    rows = [line.split() for line in output.splitlines()[1:7]]
    assert [row[0] for row in rows] == ["a", *trivial]
    assert rows[0][1:] == rows[3][1:]  # a copy of the first source
    assert "MEF-SSIM, smear: against all sources at once; Qabf: weighted means over all sources" in output
    assert "mean over 4 stacks; " in output
    assert "VIF is defined for two sources, not for 3; choose from " in refused(
        "evaluate", *sources, "--metrics", "VIF"
    )
    assert refused("compare", *sources, "-o", "o") == "compare takes two sources, not 3; name two with --sources"
    assert refused("align", *sources[:-2], "-o", "o") == "align takes two sources, not 3; name two with --sources"
