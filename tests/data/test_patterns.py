"""Glob patterns against the module `glob`, and what their wildcards stand for."""

import glob
from pathlib import Path

import pytest

from timfuse.data.patterns import find_matches

FILES = ("a.png", "b.jpg", "ab.png", ".a.png", "x/a.png", "x/y/a.png", "x/y/z.b/c.png", ".h/a.png", "v1.2/t.png")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    [
        *("*", "*.png", "?.*", "[ab].png", "[!a]*.???", ".*", ".h/*", "x/*", "x/**", "**", "**/a.png", "**/*.png"),
        *("a*b*", "x/**/c.png", "*/*", "*/../a.png", "./*.jpg", "no/*", "a.png/*", "no", "a.png", "x", "[z-a]", "["),
        *("a[.png", "."),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_paths_are_those_of_glob(root: Path, pattern: str, absolute: bool) -> None:
    path = root / pattern if absolute else Path(pattern)
    expected = {Path(hit) for hit in glob.glob(str(path), recursive=True)}
    found = [match.path for match in find_matches(path)]
    assert len(set(found)) == len(found)
    assert set(found) - {Path()} == expected - {Path()}  # "**" is the current folder too, which `glob` leaves out


@pytest.mark.parametrize(
    ("pattern", "stars"),
    [
        ("*.png", {("a",), ("ab",)}),
        ("*", {("a",), ("ab",), ("b",), ("x",), ("v1",)}),
        ("*.*", {("a",), ("ab",), ("b",), ("v1",)}),
        ("?*.p[n]g", {("a", ""), ("a", "b")}),
        ("a*", {("",), ("b",)}),
        ("**/[ac].png", {("", "a"), ("x", "a"), ("x/y", "a"), ("x/y/z.b", "c")}),
        ("v*/?.png", {("1.2", "t")}),
        ("x/y/z.b/c.png", {()}),
    ],
)
def test_wildcards_stand_for_text_without_the_suffix(root: Path, pattern: str, stars: set[tuple[str, ...]]) -> None:
    assert {match.stars for match in find_matches(Path(pattern))} == stars


def test_a_part_that_exists_is_no_pattern(root: Path) -> None:
    for folder in ("s[1] ü", "x/s[1] ü"):
        (root / folder).mkdir()
        (root / folder / "a[1].png").touch()
    (root / "s1 ü").mkdir()
    (root / "s1 ü" / "a1.png").touch()
    assert find_matches(Path("s[1] ü/*.png")) == [(Path("s[1] ü/a[1].png"), ("a[1]",))]
    assert find_matches(Path("*/s[1] ü/a[1].png")) == [(Path("x/s[1] ü/a[1].png"), ("x",))]
